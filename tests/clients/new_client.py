"""Tests of a running server with the current openai package."""

import asyncio
import base64
import json
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
    """Returns a client of the server that requires API keys."""
    return kind(base_url=os.environ["KEYED_URL"], api_key=key, **options)


def valid(reply):
    """Validates all fields against their declared types, which the client itself does not."""
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
    params = {"prompt": PROMPT, "seed": 5, "max_tokens": 12}
    names = ["fable", "text-davinci-002", "text-davinci-003"]
    replies = [client.completions.create(model=name, **params) for name in names]
    assert [reply.model for reply in replies] == names
    assert len({reply.choices[0].text for reply in replies}) == 1


def test_n():
    prompts = [PROMPT, "The king"]
    choices = client.completions.create(model="fable", prompt=prompts, n=3, seed=1, max_tokens=24).choices
    assert [choice.index for choice in choices] == list(range(6))
    assert len({choice.text for choice in choices}) == 6


def test_seed():
    params = {"model": "fable", "prompt": PROMPT, "max_tokens": 24}
    replies = [client.completions.create(**params, seed=seed) for seed in (7, 7, 8)]
    once, again, other = [reply.choices[0].text for reply in replies]
    assert once == again != other


def test_stop():
    complete = client.completions.create(**GREEDY, max_tokens=40).choices[0].text
    middle = len(complete) // 2
    stop = complete[middle : middle + 7]
    (choice,) = client.completions.create(**GREEDY, max_tokens=40, stop=stop).choices
    assert choice.text == complete[: complete.index(stop)] and choice.finish_reason == "stop"
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
    params = {"model": "fable", "prompt": PROMPT, "seed": 3, "max_tokens": 24}
    complete = client.completions.create(**params)
    *chunks, last = client.completions.create(**params, stream=True, stream_options={"include_usage": True})
    assert "".join(chunk.choices[0].text for chunk in chunks) == complete.choices[0].text and len(chunks) > 10
    assert last.choices == [] and last.usage == complete.usage
    assert all(chunk.usage is None for chunk in chunks)
    with client.completions.create(**params | {"max_tokens": 400}, stream=True) as stream:
        next(stream)  # then disconnect
    test_completion()


async def test_async():
    requests = [{"model": "fable", "prompt": PROMPT, "seed": seed, "max_tokens": 16} for seed in range(6)]
    async with AsyncOpenAI() as async_client:
        replies = await asyncio.gather(*[async_client.completions.create(**params) for params in requests])
        for params, reply in zip(requests, replies):
            assert reply.choices == client.completions.create(**params).choices
        stream = await async_client.completions.create(**requests[0], stream=True)
        text = "".join([chunk.choices[0].text async for chunk in stream])
        assert text == replies[0].choices[0].text
        chat = await async_client.chat.completions.create(model="fable", messages=MESSAGES, max_tokens=8)
        assert chat.choices[0].message.role == "assistant"
        vectors = await async_client.embeddings.create(model="fable", input="a fox")
        assert len(vectors.data) == 1


def test_chat():
    params = {"model": "gpt-4o", "messages": MESSAGES, "seed": 2, "max_completion_tokens": 16}
    reply = valid(client.chat.completions.create(**params, logprobs=True, top_logprobs=2))
    (choice,) = reply.choices
    assert reply.object == "chat.completion" and reply.model == "gpt-4o"
    assert choice.message.role == "assistant" and choice.message.content
    assert len(choice.logprobs.content) == reply.usage.completion_tokens
    assert all(len(token.top_logprobs) == 2 for token in choice.logprobs.content)
    several = client.chat.completions.create(**params, n=2)
    assert several.choices[0].message.content == choice.message.content != several.choices[1].message.content


def test_chat_stream():
    params = {"model": "fable", "messages": MESSAGES, "seed": 2, "max_tokens": 16}
    complete = client.chat.completions.create(**params)
    chunks = [valid(chunk) for chunk in client.chat.completions.create(**params, stream=True)]
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == complete.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == complete.choices[0].finish_reason
    stop = complete.choices[0].message.content[-9:-4]  # .stream() raises an error if max_tokens is reached
    complete = client.chat.completions.create(**params, stop=stop)
    assert complete.choices[0].finish_reason == "stop"
    with client.chat.completions.stream(**params, stop=stop) as stream:
        assert stream.get_final_completion().choices[0].message.content == complete.choices[0].message.content


def test_response():
    params = {"model": "fable", "input": "Tell me one.", "max_output_tokens": 16}
    extra = {"seed": 2}  # every server's but OpenAI's
    logprobs = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    reply = valid(client.responses.create(**params, **logprobs, store=False, extra_body=extra))
    assert reply.object == "response" and reply.model == "fable" and reply._request_id
    assert reply.status in ("completed", "incomplete") and reply.output_text
    (message,) = reply.output
    (part,) = message.content
    assert part.text == reply.output_text and all(len(token.top_logprobs) == 2 for token in part.logprobs)
    chat = {"model": "fable", "messages": [{"role": "user", "content": "Tell me one."}], "max_tokens": 16}
    (choice,) = client.chat.completions.create(**chat, seed=2).choices
    assert choice.message.content == reply.output_text
    # The whole conversation with each turn: nothing is stored.
    turns = [{"role": "user", "content": "Tell me one."}, message.model_dump(), {"role": "user", "content": "Go on."}]
    assert client.responses.create(**params | {"input": turns}).usage.input_tokens > reply.usage.input_tokens
    tools = [{"type": "web_search"}]
    assert client.responses.create(**params, tools=tools, extra_body=extra).output_text == reply.output_text
    for refused in ({"previous_response_id": reply.id}, {"store": True}, {"tools": tools, "tool_choice": "required"}):
        error = check.raises(openai.BadRequestError, client.responses.create, **params, **refused)
        assert error.param in refused and error.code == "unsupported_parameter"
    missing = check.raises(openai.NotFoundError, client.responses.retrieve, reply.id)
    assert "no stored responses" in missing.message
    check.raises(openai.NotFoundError, client.moderations.create, input="A")


def test_response_stream():
    params = {"model": "fable", "input": "Tell me one.", "max_output_tokens": 16, "extra_body": {"seed": 2}}
    complete = client.responses.create(**params)
    events = [valid(event) for event in client.responses.create(**params, stream=True)]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[0].type == "response.created" and events[0].response.status == "in_progress"
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == complete.output_text and len(deltas) > 2
    assert events[-1].type == f"response.{complete.status}"
    assert events[-1].response.output_text == complete.output_text and events[-1].response.usage == complete.usage
    stop = complete.output_text[-4:]  # the helper's final response is one that is completed
    params["extra_body"] = {"seed": 2, "stop": stop}
    with client.responses.stream(**params) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert final.status == "completed" and final.output_text == text


async def test_async_responses():
    params = {"model": "fable", "input": "Tell me one.", "max_output_tokens": 8, "extra_body": {"seed": 2}}
    complete = client.responses.create(**params)
    async with AsyncOpenAI() as async_client:
        reply = await async_client.responses.create(**params)
        assert reply.output_text == complete.output_text
        stream = await async_client.responses.create(**params, stream=True)
        events = [event async for event in stream]
        assert events[-1].response.output_text == complete.output_text
        params["extra_body"] = {"seed": 2, "stop": complete.output_text[-4:]}
        async with async_client.responses.stream(**params) as stream:
            kinds = [event.type async for event in stream]
            final = await stream.get_final_response()
        assert kinds[-1] == "response.completed" and final.status == "completed"


def test_embeddings():
    texts = ["a fox", "a crow"]
    floats = valid(client.embeddings.create(model="fable", input=texts, encoding_format="float"))
    raw = client.embeddings.create(model="fable", input=texts, encoding_format="base64")
    decoded = client.embeddings.create(model="fable", input=texts)  # requests base64 by default
    for one, two, three in zip(floats.data, raw.data, decoded.data, strict=True):
        data = base64.b64decode(two.embedding)
        values = list(struct.unpack(f"<{len(data) // 4}f", data))
        single = [struct.unpack("f", struct.pack("f", value))[0] for value in one.embedding]
        assert len(values) > 1 and values == single == list(three.embedding)
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
    tools = [{"type": "function", "function": {"name": "f"}}]
    request = {"model": "fable", "messages": MESSAGES, "tools": tools}
    rejected = check.raises(openai.BadRequestError, client.chat.completions.create, **request)
    assert rejected.param == "tools"


def test_keys():
    params = {"model": "fable", "prompt": "A", "max_tokens": 1}
    assert keyed(os.environ["KEY"]).completions.create(**params).choices
    wrong = check.raises(openai.AuthenticationError, keyed("wrong").completions.create, **params)
    assert wrong.status_code == 401 and wrong.code == "invalid_api_key"
    restricted = keyed(os.environ["RESTRICTED_KEY"])
    # The key is limited to a model, whatever name a request has for it.
    assert restricted.completions.create(**params).choices
    assert "text-davinci-003" in [model.id for model in restricted.models.list()]


def test_files():
    data = b'{"prompt": "A fox", "completion": " ran."}\n' * 3
    file = valid(client.files.create(file=("data.jsonl", data), purpose="fine-tune"))
    assert file.status == "processed" and file.bytes == len(data) and file.filename == "data.jsonl"
    assert client.files.wait_for_processing(file.id, max_wait_seconds=1).id == file.id
    expiring = client.files.create(
        file=("in.jsonl", data), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert expiring.expires_at == expiring.created_at + 3600
    assert client.files.content(file.id).read() == data
    assert valid(client.files.retrieve(file.id)) == file
    others = [client.files.create(file=(f"{i}.txt", b"x"), purpose="user_data").id for i in range(5)]
    listed = [file.id for file in client.files.list(limit=2, purpose="user_data")]  # page by page
    assert listed == others[::-1]
    for each in client.files.list(limit=2, order="asc"):  # while they disappear
        assert client.files.delete(each.id).deleted
    assert list(client.files.list()) == []
    missing = check.raises(openai.NotFoundError, client.files.retrieve, file.id)
    assert file.id in missing.message
    wrong = check.raises(
        openai.BadRequestError, client.files.create, file=("a.jsonl", data + b"{"), purpose="fine-tune"
    )
    assert wrong.param == "file" and "line 4" in wrong.message


def batch_input(n, **body):
    lines = [
        {"custom_id": f"r{i}", "method": "POST", "url": "/v1/completions", "body": GREEDY | {"seed": i} | body}
        for i in range(n)
    ]
    return ("in.jsonl", "\n".join(map(json.dumps, lines)).encode())


def ended(batch, of=client):
    """Returns a batch once it is at its end."""
    while valid(of.batches.retrieve(batch.id)).status not in ("completed", "failed", "expired", "cancelled"):
        time.sleep(0.05)
    return of.batches.retrieve(batch.id)


def new_batch(input, of=client):
    file = of.files.create(file=input, purpose="batch")
    return valid(
        of.batches.create(
            input_file_id=file.id,
            endpoint="/v1/completions",
            completion_window="24h",
            metadata={"of": "the tests"},
        )
    )


def test_batches():
    created = new_batch(batch_input(4, max_tokens=9, logprobs=1))
    assert created.object == "batch" and created.metadata == {"of": "the tests"}
    batch = ended(created)
    assert batch.status == "completed" and batch.error_file_id is None and batch.errors is None
    assert batch.request_counts.total == batch.request_counts.completed == 4
    lines = [json.loads(line) for line in client.files.content(batch.output_file_id).text.splitlines()]
    live = client.completions.create(**GREEDY, max_tokens=9, logprobs=1, seed=2)
    (line,) = [line for line in lines if line["custom_id"] == "r2"]
    assert line["response"]["status_code"] == 200 and line["error"] is None
    choices = [choice.model_dump() for choice in live.choices]
    assert line["response"]["body"]["choices"] == choices
    more = [new_batch(batch_input(1, max_tokens=1)).id for _ in range(3)]
    assert [batch.id for batch in client.batches.list(limit=2)] == more[::-1] + [batch.id]
    failed = ended(new_batch(("in.jsonl", b"nonsense")))
    assert failed.status == "failed" and failed.errors.data[0].line == 1
    wrong = check.raises(
        openai.BadRequestError,
        client.batches.create,
        input_file_id="file-none",
        endpoint="/v1/completions",
        completion_window="24h",
    )
    assert wrong.param == "input_file_id"


async def test_files_and_batches_async():
    async with AsyncOpenAI() as patient:
        file = await patient.files.create(file=batch_input(2, max_tokens=3), purpose="batch")
        assert file.id in [each.id async for each in patient.files.list(purpose="batch", limit=1)]
        batch = await patient.batches.create(
            input_file_id=file.id, endpoint="/v1/completions", completion_window="24h"
        )
        while batch.status not in ("completed", "failed"):
            await asyncio.sleep(0.05)
            batch = await patient.batches.retrieve(batch.id)
        assert batch.request_counts.completed == 2, batch
        answers = await patient.files.content(batch.output_file_id)
        assert len(answers.text.splitlines()) == 2
        assert batch.id in [each.id async for each in patient.batches.list(limit=1)]
        other = await patient.batches.create(
            input_file_id=file.id, endpoint="/v1/completions", completion_window="24h"
        )
        assert (await patient.batches.cancel(other.id)).status in ("cancelling", "cancelled", "completed")
        assert (await patient.files.delete(file.id)).deleted


def test_cancelled_batch():
    batch = client.batches.cancel(new_batch(batch_input(500, max_tokens=200)).id)
    assert batch.status in ("cancelling", "cancelled")
    assert ended(batch).status == "cancelled"


def test_files_and_batches_of_another_key():
    one, other = keyed(os.environ["KEY"]), keyed(os.environ["RESTRICTED_KEY"])
    batch = ended(new_batch(batch_input(1, max_tokens=1), of=one), of=one)
    check.raises(openai.NotFoundError, other.files.retrieve, batch.output_file_id)
    check.raises(openai.NotFoundError, other.batches.retrieve, batch.id)
    assert list(other.files.list()) == [] and list(other.batches.list()) == []


async def test_retries_when_limited():
    params = {"model": "fable", "prompt": "A", "max_tokens": 1}
    key = os.environ["LIMITED_KEY"]
    impatient = keyed(key, max_retries=0)
    limited = check.raises(
        openai.RateLimitError, lambda: [impatient.completions.create(**params) for _ in range(60)]
    )
    assert 1 <= int(limited.response.headers["retry-after"]) <= 2
    assert limited.response.headers["x-ratelimit-remaining-requests"] == "0"
    start = time.monotonic()
    reply = keyed(key).completions.with_raw_response.create(**params)
    assert reply.retries_taken >= 1 and reply.parse().choices
    assert time.monotonic() - start > 0.5, "retried without waiting"
    async with keyed(key, AsyncOpenAI) as patient:
        reply = await patient.completions.with_raw_response.create(**params)
        assert reply.retries_taken >= 1 and reply.parse().choices


async def test_burst_of_calls_with_default_retries():
    # Far more than the batch and the queue hold: the others are told when to come back.
    async with AsyncOpenAI() as patient:
        calls = [
            patient.completions.with_raw_response.create(model="fable", prompt=f"The {i}", max_tokens=16)
            for i in range(400)
        ]
        replies = await asyncio.gather(*calls)
    # A text may be empty: its first token may end it.
    assert all(reply.parse().choices[0].finish_reason in ("stop", "length") for reply in replies)
    assert sum(reply.retries_taken > 0 for reply in replies) > 100


EXAMPLES = b"".join(
    json.dumps({"prompt": f"To {name}:", "completion": " the garden is green."}).encode() + b"\n"
    for name in ["Anna", "Tom", "Mary"] * 5
)


def test_fine_tuning():
    file = client.files.create(file=("letters.jsonl", EXAMPLES), purpose="fine-tune")
    job = valid(
        client.fine_tuning.jobs.create(
            model="fable",
            training_file=file.id,
            suffix="letters",
            seed=3,
            method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}},
            metadata={"for": "a test"},
        )
    )
    assert job.object == "fine_tuning.job" and job.seed == 3 and job.metadata == {"for": "a test"}
    deadline = time.monotonic() + 120
    while job.status not in ("succeeded", "failed", "cancelled") and time.monotonic() < deadline:
        time.sleep(0.2)
        job = client.fine_tuning.jobs.retrieve(job.id)
    assert job.status == "succeeded" and job.hyperparameters.n_epochs == 2, job
    assert valid(job).fine_tuned_model.startswith("ft:fable::letters:")
    events = list(client.fine_tuning.jobs.list_events(job.id, limit=2))  # page by page
    assert events[0].message == "Fine-tune succeeded" and events[-1].message == f"Created fine-tune: {job.id}"
    assert len({event.id for event in events}) == len(events) and valid(events[0])
    assert any(event.type == "metrics" and event.data["train_loss"] > 0 for event in events)
    *_, checkpoint = client.fine_tuning.jobs.checkpoints.list(job.id)
    assert valid(checkpoint).fine_tuned_model_checkpoint == job.fine_tuned_model
    rows = client.files.content(job.result_files[0]).text.splitlines()
    assert all(float(cell) >= 0 for row in rows[1:] for cell in row.split(","))
    assert client.completions.create(model=job.fine_tuned_model, prompt="To Tom:", max_tokens=2).choices
    assert job.fine_tuned_model in [model.id for model in client.models.list()]
    assert job.id == next(iter(client.fine_tuning.jobs.list(limit=1))).id
    assert client.models.delete(job.fine_tuned_model).deleted
    check.raises(
        openai.NotFoundError, client.completions.create, model=job.fine_tuned_model, prompt="To", max_tokens=2
    )
    client.files.delete(file.id)
    wrong = check.raises(
        openai.BadRequestError, client.fine_tuning.jobs.create, model="fable", training_file=file.id
    )
    assert wrong.param == "training_file"


async def test_fine_tuning_async():
    async with AsyncOpenAI() as patient:
        file = await patient.files.create(file=("letters.jsonl", EXAMPLES), purpose="fine-tune")
        job = await patient.fine_tuning.jobs.create(
            model="fable", training_file=file.id, hyperparameters={"n_epochs": 50, "batch_size": 1}
        )
        paused = await patient.fine_tuning.jobs.pause(job.id)
        assert paused.status == "paused"
        resumed = await patient.fine_tuning.jobs.resume(job.id)
        assert resumed.status in ("queued", "running")
        cancelled = await patient.fine_tuning.jobs.cancel(job.id)
        assert cancelled.status == "cancelled" and cancelled.fine_tuned_model is None
        listed = [each.id async for each in patient.fine_tuning.jobs.list()]
        assert job.id in listed
        await patient.files.delete(file.id)


if __name__ == "__main__":
    check.run(globals())
