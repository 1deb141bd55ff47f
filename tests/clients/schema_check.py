"""Validates what a running server answers by JSON Schemas of OpenAI's objects (tests/data/openai)."""

import json
import os
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

import check
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

SCHEMAS = {
    path.stem: json.loads(path.read_text()) for path in (Path(__file__).parents[1] / "data/openai").glob("*.json")
}
REGISTRY = Registry().with_resources(
    (f"{name}.json", Resource.from_contents(schema)) for name, schema in SCHEMAS.items()
)

PROMPT = {"model": "fable", "prompt": "Once upon a time", "max_tokens": 8, "seed": 1}
CHAT = {"model": "fable", "messages": [{"role": "user", "content": "Tell me one."}], "max_tokens": 8, "seed": 1}
RESPONSE = {"model": "fable", "input": "Tell me one.", "max_output_tokens": 8, "seed": 1}
LOGPROBS = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
STREAM = {"stream": True}
USAGE = STREAM | {"stream_options": {"include_usage": True}}

# A route is added by a line: method and path, body, schema of the answer. The schema "list of X" is a page whose
# items are X, and "stream of X" events whose data are X, the last of which may be [DONE]. A route whose path or
# body has an id of another object is a test function of its own that passes what `answer` returns to `validate`.
ROUTES = [
    ("POST /completions", PROMPT, "completion"),
    ("POST /completions", PROMPT | {"n": 2, "logprobs": 3, "echo": True}, "completion"),
    ("POST /completions", PROMPT | USAGE | {"logprobs": 1}, "stream of completion"),
    ("POST /engines/fable/completions", PROMPT, "completion"),
    ("POST /chat/completions", CHAT, "chat_completion"),
    ("POST /chat/completions", CHAT | {"logprobs": True, "top_logprobs": 2, "n": 2}, "chat_completion"),
    ("POST /chat/completions", CHAT | USAGE | {"logprobs": True}, "stream of chat_completion_chunk"),
    ("POST /responses", RESPONSE, "response"),
    ("POST /responses", RESPONSE | {"metadata": {"a": "b"}, "instructions": "Be brief."} | LOGPROBS, "response"),
    ("POST /responses", RESPONSE | STREAM, "stream of response_stream_event"),
    ("POST /responses", RESPONSE | STREAM | LOGPROBS, "stream of response_stream_event"),
    ("POST /embeddings", {"model": "fable", "input": ["a fox", "a crow"]}, "embeddings"),
    ("POST /embeddings", {"model": "fable", "input": "a fox", "encoding_format": "base64"}, "embeddings"),
    ("GET /models", None, "list of model"),
    ("GET /models/fable", None, "model"),
    ("POST /completions", PROMPT | {"temperature": 9}, "error"),
    ("POST /chat/completions", {}, "error"),
    ("POST /responses", RESPONSE | {"previous_response_id": "resp_1"}, "error"),
    ("POST /responses", RESPONSE | STREAM | {"input": "a b " * 2000}, "error"),
    ("GET /models/none", None, "error"),
    ("GET /nothing", None, "error"),
    ("POST /moderations", {"input": "A"}, "error"),
    ("POST /images/generations", {"prompt": "A"}, "error"),
    ("GET /assistants", None, "error"),
    ("DELETE /completions", None, "error"),
]


def answer(route, body=None, content_type="application/json"):
    """Returns the body of an answer, of whatever status, as text. A body of another type is bytes."""
    method, path = route.split(" ", 1)
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": content_type, "Authorization": "Bearer any"}
    request = Request(os.environ["OPENAI_BASE_URL"] + quote(path, safe="/?=&"), data, headers, method=method)
    try:
        return urlopen(request).read().decode()
    except HTTPError as error:
        return error.read().decode()


def validate(text, name):
    """Validates an answer by a schema, or by one "list of" or "stream of" its objects; returns the object."""
    if name.startswith("stream of "):
        events = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
        assert events, f"no events in {text!r}"
        return [validate(event, name.removeprefix("stream of ")) for event in events if event != "[DONE]"]
    value = json.loads(text)
    if name.startswith("list of "):
        validate(text, "list")
        for item in value["data"]:
            validate(json.dumps(item), name.removeprefix("list of "))
        return value
    validator = Draft202012Validator({"$ref": f"{name}.json"}, registry=REGISTRY)
    errors = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]
    assert not errors, "\n".join([f"not a valid {name}:", *errors, text])
    return value


def upload(purpose, content):
    """Uploads a file and returns its id."""
    parts = {'name="purpose"': purpose, 'name="file"; filename="a.jsonl"': content}
    form = "".join(f"--cut\r\nContent-Disposition: form-data; {name}\r\n\r\n{text}\r\n" for name, text in parts.items())
    form = f"{form}--cut--\r\n".encode()
    return validate(answer("POST /files", form, "multipart/form-data; boundary=cut"), "file")["id"]


def test_files():
    file = upload("user_data", "A text.")
    validate(answer(f"GET /files/{file}"), "file")
    validate(answer("GET /files"), "list of file")
    validate(answer(f"DELETE /files/{file}"), "deleted")
    validate(answer(f"GET /files/{file}"), "error")


def test_batches():
    line = {"custom_id": "a", "method": "POST", "url": "/v1/responses", "body": RESPONSE}
    file = upload("batch", json.dumps(line) + "\n")
    create = {"input_file_id": file, "endpoint": "/v1/responses", "completion_window": "24h"}
    batch = validate(answer("POST /batches", create), "batch")
    deadline = time.monotonic() + 60
    while batch["status"] != "completed":
        assert time.monotonic() < deadline and batch["status"] in ("validating", "in_progress", "finalizing"), batch
        time.sleep(0.1)
        batch = validate(answer(f"GET /batches/{batch['id']}"), "batch")
    output = json.loads(answer(f"GET /files/{batch['output_file_id']}/content"))
    validate(json.dumps(output["response"]["body"]), "response")
    validate(answer("GET /batches"), "list of batch")
    validate(answer(f"POST /batches/{batch['id']}/cancel"), "error")
    validate(answer("POST /batches", create | {"endpoint": "/v1/models"}), "error")
    for id in (file, batch["output_file_id"]):
        validate(answer(f"DELETE /files/{id}"), "deleted")


def test_fine_tuning():
    examples = "".join(
        json.dumps({"prompt": f"A tale of {name} ->", "completion": f" {name} was glad. END"}) + "\n"
        for name in ("Tom", "Anna", "Ben", "Eva", "Max", "Ida")
    )
    file = upload("fine-tune", examples)
    create = {"model": "fable", "training_file": file, "suffix": "tales", "hyperparameters": {"n_epochs": 1}}
    job = validate(answer("POST /fine_tuning/jobs", create), "fine_tuning_job")
    path, legacy = f"/fine_tuning/jobs/{job['id']}", f"/fine-tunes/{job['id'].replace('ftjob-', 'ft-')}"
    validate(answer(f"GET {legacy}"), "fine_tune")
    stream = validate(answer(f"GET {legacy}/events?stream=true"), "stream of fine_tune_event")  # until the job ends
    assert "succeeded" in stream[-1]["message"], stream
    job = validate(answer(f"GET {path}"), "fine_tuning_job")
    assert job["status"] == "succeeded", job
    assert validate(answer(f"GET {legacy}"), "fine_tune")["status"] == "succeeded"
    validate(answer(f"GET {legacy}/events"), "list of fine_tune_event")
    validate(answer("GET /fine-tunes"), "list of fine_tune")
    validate(answer("GET /fine_tuning/jobs"), "list of fine_tuning_job")
    validate(answer(f"GET {path}/events"), "list of fine_tuning_job_event")
    validate(answer(f"GET {path}/checkpoints"), "list of fine_tuning_job_checkpoint")
    validate(answer(f"GET /models/{job['fine_tuned_model']}"), "model")
    validate(answer("POST /completions", PROMPT | {"model": job["fine_tuned_model"]}), "completion")
    validate(answer(f"POST {path}/cancel"), "error")
    wrong = upload("user_data", "A text.")
    validate(answer("POST /fine_tuning/jobs", create | {"training_file": wrong}), "error")
    validate(answer("POST /fine_tuning/jobs", create | {"method": {"type": "dpo"}}), "error")
    validate(answer(f"DELETE /models/{job['fine_tuned_model']}"), "deleted")
    for id in (file, wrong, *job["result_files"]):
        validate(answer(f"DELETE /files/{id}"), "deleted")


def make_test(route, body, name):
    """Returns a test of a line of the table."""
    return lambda: validate(answer(route, body), name)


def test_schemas_are_schemas():
    for name, schema in SCHEMAS.items():
        Draft202012Validator.check_schema(schema)
        assert schema["$id"] == f"{name}.json" and schema["description"], name


def test_schemas_refuse_what_is_wrong():
    completion = validate(answer("POST /completions", PROMPT), "completion")
    for field in ("id", "choices", "model"):
        wrong = {key: value for key, value in completion.items() if key != field}
        check.raises(AssertionError, validate, json.dumps(wrong), "completion")
    check.raises(AssertionError, validate, json.dumps(completion | {"created": "now"}), "completion")
    event = {"type": "response.nothing", "sequence_number": 0}
    check.raises(AssertionError, validate, json.dumps(event), "response_stream_event")


def main():
    tests = {f"test_{i}_{route} as {name}": make_test(route, body, name) for i, (route, body, name) in enumerate(ROUTES)}
    check.run(globals() | tests)


if __name__ == "__main__":
    main()
