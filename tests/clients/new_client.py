"""The newest openai package, against a running server."""

import asyncio
import base64
import os
import struct
import time

import check
import openai
from openai import AsyncOpenAI, OpenAI

PROMPT = "Once upon a time there was a little"
GREEDY = {"model": "fable", "prompt": PROMPT, "temperature": 0}
MESSAGES = [{"role": "system", "content": "You tell fables."}, {"role": "user", "content": "Tell me one."}]
client = OpenAI()


def keyed(key, kind=OpenAI, **options):
    """A client of the server that asks for keys."""
    return kind(base_url=os.environ["KEYED_URL"], api_key=key, **options)


def valid(reply):
    """The client takes what comes; here every field must have the type that it declares."""
    type(reply).model_validate(reply.model_dump())
    return reply


def test_version():
    assert openai.__version__ == os.environ["CLIENT_VERSION"]


def test_completion():
    reply = valid(client.completions.create(**GREEDY, max_tokens=20, logprobs=2))
    assert reply.object == "text_completion" and reply.model == "fable" and reply._request_id
    (choice,) = reply.choices
    assert choice.finish_reason == "length" and choice.text and len(choice.logprobs.tokens) == 20
    assert choice.logprobs.text_offset[0] == len(PROMPT)
    assert reply.usage.completion_tokens == 20 == reply.usage.total_tokens - reply.usage.prompt_tokens


def test_aliases():
    asked = {"prompt": PROMPT, "seed": 5, "max_tokens": 12}
    names = ["fable", "text-davinci-002", "text-davinci-003"]
    replies = [client.completions.create(model=name, **asked) for name in names]
    assert [reply.model for reply in replies] == names
    assert len({reply.choices[0].text for reply in replies}) == 1


def test_n():
    choices = client.completions.create(model="fable", prompt=[PROMPT, "The king"], n=3, seed=1, max_tokens=24).choices
    assert [choice.index for choice in choices] == list(range(6))
    assert len({choice.text for choice in choices}) == 6


def test_seed():
    asked = {"model": "fable", "prompt": PROMPT, "max_tokens": 24}
    once, again, other = [client.completions.create(**asked, seed=seed).choices[0].text for seed in (7, 7, 8)]
    assert once == again != other


def test_stop():
    whole = client.completions.create(**GREEDY, max_tokens=40).choices[0].text
    middle = len(whole) // 2
    stop = whole[middle : middle + 7]
    (choice,) = client.completions.create(**GREEDY, max_tokens=40, stop=stop).choices
    assert choice.text == whole[: whole.index(stop)] and choice.finish_reason == "stop"
    streamed = client.completions.create(**GREEDY, max_tokens=40, stop=stop, stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == choice.text


def test_echo_with_logprobs():
    (choice,) = client.completions.create(**GREEDY, max_tokens=8, echo=True, logprobs=3).choices
    assert choice.text.startswith(PROMPT)
    check.echoed_logprobs(choice.logprobs, choice.text, 3)
    scored = client.completions.create(**GREEDY, max_tokens=0, echo=True, logprobs=3)
    assert scored.choices[0].text == PROMPT and scored.usage.completion_tokens == 0
    check.echoed_logprobs(scored.choices[0].logprobs, PROMPT, 3)
    assert choice.logprobs.token_logprobs[:-8] == scored.choices[0].logprobs.token_logprobs


def test_stream():
    asked = {"model": "fable", "prompt": PROMPT, "seed": 3, "max_tokens": 24}
    whole = client.completions.create(**asked)
    *chunks, last = client.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text and len(chunks) > 10
    assert last.choices == [] and last.usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks)
    with client.completions.create(**asked | {"max_tokens": 400}, stream=True) as stream:
        next(stream)  # and leave
    test_completion()


async def test_async():
    asked = [{"model": "fable", "prompt": PROMPT, "seed": seed, "max_tokens": 16} for seed in range(6)]
    async with AsyncOpenAI() as many:
        replies = await asyncio.gather(*[many.completions.create(**ask) for ask in asked])
        for ask, reply in zip(asked, replies):
            assert reply.choices == client.completions.create(**ask).choices
        stream = await many.completions.create(**asked[0], stream=True)
        text = "".join([chunk.choices[0].text async for chunk in stream])
        assert text == replies[0].choices[0].text
        chat = await many.chat.completions.create(model="fable", messages=MESSAGES, max_tokens=8)
        assert chat.choices[0].message.role == "assistant"
        vectors = await many.embeddings.create(model="fable", input="a fox")
        assert len(vectors.data) == 1


def test_chat():
    asked = {"model": "gpt-4o", "messages": MESSAGES, "seed": 2, "max_completion_tokens": 16}
    reply = valid(client.chat.completions.create(**asked, logprobs=True, top_logprobs=2))
    (choice,) = reply.choices
    assert reply.object == "chat.completion" and reply.model == "gpt-4o"
    assert choice.message.role == "assistant" and choice.message.content
    assert len(choice.logprobs.content) == reply.usage.completion_tokens
    assert all(len(token.top_logprobs) == 2 for token in choice.logprobs.content)
    several = client.chat.completions.create(**asked, n=2)
    assert several.choices[0].message.content == choice.message.content != several.choices[1].message.content


def test_chat_stream():
    asked = {"model": "fable", "messages": MESSAGES, "seed": 2, "max_tokens": 16}
    whole = client.chat.completions.create(**asked)
    chunks = [valid(chunk) for chunk in client.chat.completions.create(**asked, stream=True)]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    stop = whole.choices[0].message.content[-9:-4]  # this way to stream is content with nothing that max_tokens cut
    whole = client.chat.completions.create(**asked, stop=stop)
    assert whole.choices[0].finish_reason == "stop"
    with client.chat.completions.stream(**asked, stop=stop) as stream:
        assert stream.get_final_completion().choices[0].message.content == whole.choices[0].message.content


def test_embeddings():
    texts = ["a fox", "a crow"]
    floats = valid(client.embeddings.create(model="fable", input=texts, encoding_format="float"))
    raw = client.embeddings.create(model="fable", input=texts, encoding_format="base64")
    decoded = client.embeddings.create(model="fable", input=texts)  # asks for base64 by itself
    for one, two, three in zip(floats.data, raw.data, decoded.data, strict=True):
        data = base64.b64decode(two.embedding)
        numbers = list(struct.unpack(f"<{len(data) // 4}f", data))
        single = [struct.unpack("f", struct.pack("f", number))[0] for number in one.embedding]
        assert len(numbers) > 1 and numbers == single == list(three.embedding)
    assert floats.data[0].embedding != floats.data[1].embedding


def test_models():
    assert {model.id for model in client.models.list()} == {"fable", "text-davinci-002", "text-davinci-003"}
    assert valid(client.models.retrieve("text-davinci-002")).object == "model"
    missing = check.raises(openai.NotFoundError, client.models.retrieve, "nothing")
    assert missing.code == "model_not_found" and missing.request_id


def test_bad_requests():
    create = client.completions.create
    long = check.raises(openai.BadRequestError, create, model="fable", prompt=PROMPT, max_tokens=100_000)
    assert long.code == "context_length_exceeded" and "maximum context length" in long.message
    assert long.type == "invalid_request_error"
    long = check.raises(openai.BadRequestError, create, model="fable", prompt="a b " * 2000, stream=True)
    assert long.code == "context_length_exceeded"
    wrong = check.raises(openai.BadRequestError, create, model="fable", prompt=PROMPT, temperature=9)
    assert wrong.param == "temperature"
    refused = {"model": "fable", "messages": MESSAGES, "tools": [{"type": "function", "function": {"name": "f"}}]}
    refused = check.raises(openai.BadRequestError, client.chat.completions.create, **refused)
    assert refused.param == "tools"


def test_keys():
    ask = {"model": "fable", "prompt": "A", "max_tokens": 1}
    assert keyed(os.environ["KEY"]).completions.create(**ask).choices
    wrong = check.raises(openai.AuthenticationError, keyed("wrong").completions.create, **ask)
    assert wrong.status_code == 401 and wrong.code == "invalid_api_key"
    one = keyed(os.environ["KEY_OF_ONE"])
    missing = check.raises(openai.NotFoundError, one.completions.create, **ask)
    assert missing.code == "model_not_found"
    assert [model.id for model in one.models.list()] == ["text-davinci-003"]


async def test_retries_when_limited():
    ask = {"model": "fable", "prompt": "A", "max_tokens": 1}
    key = os.environ["LIMITED_KEY"]
    impatient = keyed(key, max_retries=0)
    limited = check.raises(
        openai.RateLimitError, lambda: [impatient.completions.create(**ask) for _ in range(60)]
    )
    assert 1 <= int(limited.response.headers["retry-after"]) <= 2
    assert limited.response.headers["x-ratelimit-remaining-requests"] == "0"
    start = time.monotonic()
    reply = keyed(key).completions.with_raw_response.create(**ask)
    assert reply.retries_taken >= 1 and reply.parse().choices
    assert time.monotonic() - start > 0.5, "it has not waited"
    async with keyed(key, AsyncOpenAI) as patient:
        reply = await patient.completions.with_raw_response.create(**ask)
        assert reply.retries_taken >= 1 and reply.parse().choices


if __name__ == "__main__":
    check.run(globals())
