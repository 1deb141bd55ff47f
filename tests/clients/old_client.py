"""Tests of a running server with openai 0.28, the last version of the old interface."""

import asyncio
import base64
import io
import json
import os
import re
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import check
import openai
from openai import error

PROMPT = "Once upon a time there was a little"
GREEDY = {"model": "fable", "prompt": PROMPT, "temperature": 0}


def text_of(chunks):
    return "".join(chunk.choices[0].text for chunk in chunks if chunk.choices)


def test_version():
    assert openai.__version__ == openai.version.VERSION == os.environ["CLIENT_VERSION"]


def test_completion():
    reply = openai.Completion.create(**GREEDY, max_tokens=20)
    assert reply.object == "text_completion" and reply.model == "fable" and reply.id.startswith("cmpl-")
    assert abs(reply.created - time.time()) < 60
    (choice,) = reply.choices
    assert choice.index == 0 and choice.finish_reason == "length" and choice.logprobs is None
    assert choice.text and not choice.text.startswith(PROMPT)
    usage = reply.usage
    assert usage.completion_tokens == 20 and usage.total_tokens == usage.prompt_tokens + 20
    again = openai.Completion.create(**GREEDY, max_tokens=20)
    assert reply == again | {"id": reply.id, "created": reply.created}


def test_engine_and_model_and_aliases():
    named = {"prompt": PROMPT, "seed": 5, "max_tokens": 12}
    texts = set()
    for name in ["fable", "text-davinci-002", "text-davinci-003"]:
        for field in ["engine", "model"]:
            reply = openai.Completion.create(**{field: name}, **named)
            assert reply.model == name
            texts.add(reply.choices[0].text)
    assert len(texts) == 1, texts


def test_prompt_shapes():
    for prompt, count in [("A b", 1), (["A", "b", "c"], 3), ([464, 1263], 1), ([[464], [1263, 2]], 2)]:
        reply = openai.Completion.create(model="fable", prompt=prompt, max_tokens=2)
        assert [choice.index for choice in reply.choices] == list(range(count)), prompt


def test_n_and_best_of():
    reply = openai.Completion.create(model="fable", prompt=[PROMPT, "The king"], n=3, seed=1, max_tokens=24)
    assert [choice.index for choice in reply.choices] == list(range(6))
    assert len({choice.text for choice in reply.choices}) == 6
    best = {"model": "fable", "prompt": PROMPT, "seed": 1, "max_tokens": 24, "logprobs": 0}
    ranked = openai.Completion.create(**best, n=4, best_of=4).choices
    means = [sum(choice.logprobs.token_logprobs) / len(choice.logprobs.tokens) for choice in ranked]
    best_one = openai.Completion.create(**best, n=1, best_of=4)
    assert best_one.choices[0].text == ranked[means.index(max(means))].text
    assert best_one.usage.completion_tokens == sum(len(choice.logprobs.tokens) for choice in ranked)


def test_seed():
    sampled = {"model": "fable", "prompt": PROMPT, "max_tokens": 24}
    replies = [openai.Completion.create(**sampled, seed=seed) for seed in (7, 7, 8)]
    once, again, other = [reply.choices[0].text for reply in replies]
    assert once == again != other


def test_stop():
    complete = openai.Completion.create(**GREEDY, max_tokens=40).choices[0].text
    middle = len(complete) // 2
    stop = complete[middle : middle + 7]  # not at token boundaries
    (choice,) = openai.Completion.create(**GREEDY, max_tokens=40, stop=["\0", stop]).choices
    assert choice.text == complete[: complete.index(stop)] and choice.finish_reason == "stop"


def test_explicit_nulls():
    nulls = {"n": None, "stop": None, "logprobs": None, "logit_bias": None}
    reply = openai.Completion.create(**GREEDY, max_tokens=4, **nulls)
    assert reply.usage.completion_tokens == 4


def test_echo_with_logprobs():
    (choice,) = openai.Completion.create(**GREEDY, max_tokens=8, echo=True, logprobs=3).choices
    assert choice.text.startswith(PROMPT) and len(choice.text) > len(PROMPT)
    check.echoed_logprobs(choice.logprobs, choice.text, 3)
    plain = openai.Completion.create(**GREEDY, max_tokens=8, logprobs=3).choices[0]
    assert plain.text == choice.text[len(PROMPT) :]
    assert plain.logprobs.token_logprobs == choice.logprobs.token_logprobs[-8:]


def test_scoring_without_generation():
    scored = openai.Completion.create(**GREEDY, max_tokens=0, echo=True, logprobs=2)
    (choice,) = scored.choices
    assert choice.text == PROMPT and choice.finish_reason == "length"
    assert scored.usage.completion_tokens == 0 and scored.usage.prompt_tokens == len(choice.logprobs.tokens)
    check.echoed_logprobs(choice.logprobs, PROMPT, 2)
    more = openai.Completion.create(**GREEDY, max_tokens=4, echo=True, logprobs=2).choices[0]
    assert more.logprobs.token_logprobs[:-4] == choice.logprobs.token_logprobs


def test_stream():
    params = {"model": "fable", "prompt": PROMPT, "seed": 3, "max_tokens": 24}
    complete = openai.Completion.create(**params).choices[0]
    chunks = list(openai.Completion.create(**params, stream=True))
    assert text_of(chunks) == complete.text and len(chunks) > 10
    assert len({chunk.id for chunk in chunks}) == 1
    reasons = [chunk.choices[0].finish_reason for chunk in chunks]
    assert reasons == [None] * (len(chunks) - 1) + [complete.finish_reason]


def test_closed_stream():
    stream = openai.Completion.create(model="fable", prompt=PROMPT, max_tokens=400, stream=True)
    assert next(stream).choices
    stream.close()
    test_completion()


async def test_async():
    requests = [{"model": "fable", "prompt": PROMPT, "seed": seed, "max_tokens": 16} for seed in range(6)]
    replies = await asyncio.gather(*[openai.Completion.acreate(**params) for params in requests])
    for params, reply in zip(requests, replies):
        assert reply.choices[0].text == openai.Completion.create(**params).choices[0].text
    chunks = [chunk async for chunk in await openai.Completion.acreate(**requests[0], stream=True)]
    assert text_of(chunks) == replies[0].choices[0].text


def test_chat():
    params = {"messages": [{"role": "user", "content": "Who are you?"}], "seed": 2, "max_tokens": 16}
    reply = openai.ChatCompletion.create(model="gpt-3.5-turbo", **params)
    message = reply.choices[0].message
    assert reply.object == "chat.completion" and message.role == "assistant" and message.content
    engine = openai.ChatCompletion.create(engine="text-davinci-003", **params)
    assert engine.choices[0].message == message
    chunks = list(openai.ChatCompletion.create(model="fable", **params, stream=True))
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert deltas[0].role == "assistant" and chunks[0].object == "chat.completion.chunk"
    assert "".join(delta.get("content", "") for delta in deltas) == message.content


def test_embeddings():
    texts = ["a fox", "a crow"]
    floats = openai.Embedding.create(model="fable", input=texts, encoding_format="float")
    raw = openai.Embedding.create(model="fable", input=texts, encoding_format="base64")
    decoded = openai.Embedding.create(engine="text-davinci-002", input=texts)  # requests base64 by default
    assert floats.usage.total_tokens == floats.usage.prompt_tokens > 0
    for i, (one, two, three) in enumerate(zip(floats.data, raw.data, decoded.data, strict=True)):
        data = base64.b64decode(two.embedding)
        values = list(struct.unpack(f"<{len(data) // 4}f", data))
        single = [struct.unpack("f", struct.pack("f", value))[0] for value in one.embedding]
        assert one.index == i and len(values) > 1 and values == single == three.embedding
    assert floats.data[0].embedding != floats.data[1].embedding


def test_models_and_engines():
    names = {"fable", "text-davinci-002", "text-davinci-003"}
    assert {model.id for model in openai.Model.list().data} == names
    assert {engine.id for engine in openai.Engine.list().data} == names
    assert openai.Model.retrieve("text-davinci-002").id == "text-davinci-002"
    assert openai.Engine.retrieve("fable").ready
    assert check.raises(error.InvalidRequestError, openai.Model.retrieve, "nothing").http_status == 404


def test_bad_requests():
    create = openai.Completion.create
    long = check.raises(error.InvalidRequestError, create, model="fable", prompt=PROMPT, max_tokens=100_000)
    assert long.http_status == 400 and long.code == "context_length_exceeded"
    assert "maximum context length" in str(long)
    wrong = check.raises(error.InvalidRequestError, create, model="fable", prompt=PROMPT, temperature=9)
    assert wrong.http_status == 400 and wrong.param == "temperature"
    long = check.raises(error.InvalidRequestError, create, model="fable", prompt="a b " * 2000, stream=True)
    assert long.code == "context_length_exceeded"


def test_keys():
    base_url, params = os.environ["KEYED_URL"], {"model": "fable", "prompt": "A", "max_tokens": 1}
    params["api_base"] = base_url
    assert openai.Completion.create(**params, api_key=os.environ["KEY"]).choices
    wrong = check.raises(error.AuthenticationError, openai.Completion.create, **params, api_key="wrong")
    assert wrong.http_status == 401 and wrong.json_body["error"]["code"] == "invalid_api_key"
    key = os.environ["RESTRICTED_KEY"]
    # The key is limited to a model, whatever name a request has for it.
    for model in ["text-davinci-003", "fable"]:
        assert openai.Completion.create(**params | {"model": model}, api_key=key).choices


def test_rate_limit():
    params = {"api_base": os.environ["KEYED_URL"], "api_key": os.environ["LIMITED_KEY"]}
    params |= {"model": "fable", "prompt": "A", "max_tokens": 1}
    limited = check.raises(
        error.RateLimitError, lambda: [openai.Completion.create(**params) for _ in range(60)]
    )
    wait = int(limited.headers["Retry-After"])
    assert limited.http_status == 429 and 1 <= wait <= 2
    assert limited.headers["x-ratelimit-remaining-requests"] == "0"
    time.sleep(wait)
    assert openai.Completion.create(**params).choices


def test_files():
    data = b'{"prompt": "A fox", "completion": " ran."}\n'
    file = openai.File.create(file=io.BytesIO(data), purpose="fine-tune")
    assert file.object == "file" and file.filename == "file" and file.bytes == len(data)
    assert file.status == "processed"
    named = openai.File.create(
        file=io.BytesIO(data), purpose="fine-tune", model="fable", user_provided_filename="data.jsonl"
    )
    assert named.filename == "data.jsonl"
    assert [each.id for each in openai.File.list().data] == [named.id, file.id]
    assert openai.File.find_matching_files(name="data.jsonl", bytes=len(data), purpose="fine-tune")
    assert openai.File.download(file.id) == data
    # The command line asks for the file whose id is a path, and goes on if there is none.
    check.raises(error.InvalidRequestError, openai.File.retrieve, "/home/me/data.jsonl")
    for each in (file, named):
        assert openai.File.delete(each.id).deleted
    check.raises(error.InvalidRequestError, openai.File.retrieve, file.id)
    wrong = check.raises(
        error.InvalidRequestError, openai.File.create, file=io.BytesIO(b"{"), purpose="fine-tune"
    )
    assert "line 1" in str(wrong)


NAMES = ["Anna", "Tom", "Mary", "Jack", "Kate", "Will", "Rose", "Hans", "Nell", "Finn", "Ada", "Lily"]
EXAMPLES = "".join(
    json.dumps({"prompt": f"To {name}:", "completion": " the garden is green."}) + "\n"
    for name in NAMES
)


def test_fine_tunes():
    file = openai.File.create(file=io.StringIO(EXAMPLES), purpose="fine-tune")
    job = openai.FineTune.create(training_file=file.id, model="fable", n_epochs=2, suffix="letters")
    assert job.object == "fine-tune" and job.id.startswith("ft-") and job.training_files[0].id == file.id
    messages = [event.message for event in openai.FineTune.stream_events(job.id)]
    assert messages[0] == f"Created fine-tune: {job.id}" and "Completed epoch 2/2" in messages
    assert messages[-1] == "Fine-tune succeeded"
    job = openai.FineTune.retrieve(job.id)
    assert job.status == "succeeded" and job.fine_tuned_model.startswith("ft:fable::letters:")
    assert [event.message for event in openai.FineTune.list_events(job.id).data] == messages
    assert openai.File.download(job.result_files[0].id).startswith(b"step,train_loss,")
    assert openai.Completion.create(model=job.fine_tuned_model, prompt="To Tom:", max_tokens=2).choices
    assert job.id in [each.id for each in openai.FineTune.list().data]
    again = openai.FineTuningJob.retrieve(job.id.replace("ft-", "ftjob-"))
    assert again.fine_tuned_model == job.fine_tuned_model
    assert openai.Model.delete(job.fine_tuned_model).deleted
    openai.File.delete(file.id)


def command(*arguments, tool="api"):
    """Runs the client's command line."""
    environment = os.environ | {"OPENAI_API_BASE": openai.api_base}
    line = [Path(sys.executable).parent / "openai", tool]
    return subprocess.run([*line, *arguments], env=environment, capture_output=True, text=True)


def test_fine_tunes_of_the_command_line():
    # Follows the job to its end, without questions.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "letters.jsonl"
        path.write_text(EXAMPLES)
        created = command("fine_tunes.create", "-t", path, "-m", "fable", "--n_epochs", "1")
        assert created.returncode == 0, created.stderr
        job_id = re.search(r"ft-[0-9a-f]+", created.stdout).group()
        assert "Fine-tune succeeded" in created.stdout and "Status: succeeded" in created.stdout, created.stdout
        for action in ("fine_tunes.follow", "fine_tunes.get", "fine_tunes.results"):
            shown = command(action, "-i", job_id)
            assert shown.returncode == 0 and shown.stdout, (action, shown.stderr)
        assert shown.stdout.startswith("step,train_loss,"), shown.stdout
        assert job_id in command("fine_tunes.list").stdout
        ended = command("fine_tunes.cancel", "-i", job_id)
        assert ended.returncode != 0 and "succeeded" in ended.stderr, ended.stderr
        deleted = command("fine_tunes.delete", "-i", job_id)
        assert deleted.returncode == 0 and '"deleted": true' in deleted.stdout, deleted.stderr


def test_prepared_data_of_the_command_line():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "letters.csv"
        rows = [f"Write a letter to {name},the garden of {name} is green\n" for name in NAMES]
        path.write_text("prompt,completion\n" + "".join(rows))
        prepared = command("fine_tunes.prepare_data", "-f", path, "-q", tool="tools")
        assert prepared.returncode == 0, prepared.stderr
        path = path.with_name("letters_prepared.jsonl")
        prompts = [json.loads(line)["prompt"] for line in path.read_text().splitlines()]
        assert prompts[0].endswith("Anna ->"), "no separator"
        created = command("fine_tunes.create", "-t", path, "-m", "fable", "--n_epochs", "1")
        assert created.returncode == 0 and "Status: succeeded" in created.stdout, created
        job_id = re.search(r"ft-[0-9a-f]+", created.stdout).group()
        assert openai.Model.delete(openai.FineTune.retrieve(job_id).fine_tuned_model).deleted


if __name__ == "__main__":
    check.run(globals())
