"""Extends schemathesis by the rules of the API that JSON Schema cannot state.

A request that breaks one of them is valid by its schema and answered 400. These answers, and no others, are
accepted in place of those that schemathesis' own check of valid data expects.
"""

import schemathesis
from schemathesis.specs.openapi.checks import positive_data_acceptance

# Error codes: the prompt's tokens are known only to the tokenizer.
CODES = {"context_length_exceeded"}
# Parts of messages.
MESSAGES = (
    "expected at least n, which is ",  # best_of: at least as many as are returned
    "expected n with stream",  # best_of: with a stream, exactly as many
    "completions over all prompts",  # best_of or n times the number of prompts
    "expected at most max_tokens",  # min_tokens
    "expected at most max_completion_tokens",
    "expected at most max_output_tokens",
    '_file: missing, expected the id of a file',  # training_file: not empty
    "metadata.hornbook",  # lora or full
    "found a file for ",  # training_file: for fine-tuning
    "The job is ",  # cancel and the like: only jobs that have not ended
    "No such File object",  # input_file_id: that of a file
    "token ids in `tokens`",  # prompt: or tokens, not both
    "expected a layer from 0",  # ablate: components of the model
    "expected a head from 0",
    "expected a name such as blocks.0",  # site: of the model
    "token: found ",  # token: of the text
    "is outside the vocabulary",  # target: a token id
    "file: line ",  # data to fine-tune with: JSON Lines
    "file: found no text",
    "file: found UTF-",
)


@schemathesis.hook
def map_body(context, body):
    """Measures attention over short texts: long ones take seconds each."""
    if context.operation.path.endswith("/measure/attention") and isinstance(body, dict):
        if type(body.get("seq")) is int and 64 < body["seq"] <= 1024:
            body["seq"] = body["seq"] % 64 + 1
    return body


@schemathesis.check
def accepts_valid_data(ctx, response, case):
    if response.status_code == 400:
        error = response.json()["error"]
        if error["code"] in CODES or any(part in error["message"] for part in MESSAGES):
            return None
    return positive_data_acceptance(ctx, response, case)
