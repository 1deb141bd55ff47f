"""Shared by the tests of both clients: a test runner, and assertions on errors and logprobs."""

import asyncio
import faulthandler
import inspect
import sys
import time
import traceback


def run(tests):
    """Runs every function named test_*, prints one line for each, and exits with 1 if any failed."""
    faulthandler.dump_traceback_later(300, exit=True)  # aborts hanging tests
    failed = False
    for name, test in list(tests.items()):
        if not name.startswith("test_"):
            continue
        start = time.monotonic()
        try:
            result = test()
            if inspect.iscoroutine(result):
                asyncio.run(result)
            print(f"ok {name[5:]} ({time.monotonic() - start:.2f} s)", flush=True)
        except Exception:
            failed = True
            print(f"FAILED {name[5:]}\n{traceback.format_exc()}", flush=True)
    sys.exit(failed)


def raises(kind, call, *arguments, **named):
    """Returns the error that a call must raise."""
    try:
        result = call(*arguments, **named)
    except kind as error:
        return error
    raise AssertionError(f"returned {result!r}, expected {kind.__name__}")


def echoed_logprobs(logprobs, text, alternatives):
    """Checks the logprobs of an echoed prompt and its completion; the first token must have none."""
    assert "".join(logprobs.tokens) == text, logprobs.tokens
    offset = 0
    for token, actual in zip(logprobs.tokens, logprobs.text_offset, strict=True):
        assert actual == offset, (token, actual, offset)
        offset += len(token)
    first, *others = logprobs.token_logprobs
    assert first is None and all(logprob <= 0 for logprob in others), logprobs.token_logprobs
    assert len(others) + 1 == len(logprobs.tokens)
    first, *others = logprobs.top_logprobs
    assert first is None
    for top, logprob in zip(others, logprobs.token_logprobs[1:], strict=True):
        # The token itself is included, in addition to the alternatives if it is not one of them.
        assert logprob in top.values() and len(top) in (alternatives, alternatives + 1), (top, logprob)
        assert max(top.values()) >= logprob
