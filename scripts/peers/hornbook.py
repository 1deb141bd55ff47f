"""Hornbook, measured by its own `hornbook bench`.

The fields read from the JSON object printed with --json:

    {"results": [{"precision": "f32", "threads": 2, "phase": "decode", "depth": 32,
                  "tokens": 64, "seconds": 1.02, "tokens_per_second": 62.7}, ...]}

`phase` is "decode" (with `depth`, the context length before the timer starts),
"prefill" (with `prompt`, tokens) or "batch" (with `sequences`, and the total
`tokens_per_second`). `tokens` and `seconds` of one timed run are optional; if
present, they must agree with the rate. Other results and keys are ignored.
`hornbook generate` verifies independently that the tokens are generated, and by
this model.
"""

import json
import shutil
import subprocess
import time
from pathlib import Path

from .workload import InvalidRun

PRECISIONS = {name: name for name in ("f32", "f16", "bf16", "bf16-dot", "int8", "int4")}
BUILT = Path(__file__).resolve().parents[2] / "target" / "release" / "hornbook"
TIMEOUT_SECONDS = 900
CHECK_TOKENS = 64


class BenchFailed(Exception):
    """`hornbook bench` reported no results; the message is one line."""


def find(given):
    """Returns the binary: the given one, else target/release, else the one on PATH; None if not found."""
    if given:
        return given if given.is_file() else None
    if BUILT.is_file():
        return BUILT
    on_path = shutil.which("hornbook")
    return Path(on_path) if on_path else None


def version(binary):
    try:
        run = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return run.stdout.strip().removeprefix("hornbook ") or None


def run(binary, subcommand, checkpoint, precision, threads, *rest):
    """Runs one command; returns (standard output, seconds)."""
    options = ["--model", str(checkpoint.folder), "--precision", precision, "--threads", str(threads)]
    start = time.perf_counter()
    try:
        done = subprocess.run(
            [binary, subcommand, *options, *rest], capture_output=True, text=True, timeout=TIMEOUT_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise BenchFailed(f"hornbook {subcommand} did not finish within {TIMEOUT_SECONDS} s") from None
    except OSError as error:
        raise BenchFailed(f"{binary}: {error.strerror}") from None
    if done.returncode:
        messages = [line for line in done.stderr.split("\n") if line.strip()] or [
            "no message on standard error"
        ]
        raise BenchFailed(f"hornbook {subcommand} exited with status {done.returncode}: {messages[0]}")
    return done.stdout, time.perf_counter() - start


def check_generate(binary, checkpoint, precision, threads, prompt, next_id):
    """Raises InvalidRun unless greedy decoding generates all requested tokens.

    In f32 the first must be `next_id` of the reference; lower precisions may change it.
    """
    options = ["--max-tokens", str(CHECK_TOKENS), "--min-tokens", str(CHECK_TOKENS), "--temperature", "0"]
    ids = ["--prompt-ids", ",".join(map(str, prompt)), "--output", "ids"]
    output, _ = run(binary, "generate", checkpoint, precision, threads, *ids, *options)
    generated = [id.strip() for id in output.split(",") if id.strip()]
    if len(generated) != CHECK_TOKENS or not all(id.isdecimal() for id in generated):
        raise InvalidRun(f"hornbook generate wrote {len(generated)} ids, expected {CHECK_TOKENS}")
    if precision == "f32" and int(generated[0]) != next_id:
        raise InvalidRun(f"hornbook generate wrote {generated[0]} first, expected {next_id}: wrong model")


def measure(binary, checkpoint, precision, threads, works):
    """Returns {workload key: tokens per second} from one run of `hornbook bench`."""
    output, wall_seconds = run(binary, "bench", checkpoint, precision, threads, "--json")
    try:
        results = json.loads(output)["results"]
    except (json.JSONDecodeError, KeyError, TypeError):
        raise BenchFailed("hornbook bench printed no JSON object with `results`") from None
    rates = {}
    for work in works:
        for result in results:
            if matches(result, work, precision, threads):
                rates[work.key] = checked_rate(result, work, wall_seconds)
                break
    return rates


def matches(result, work, precision, threads):
    """Whether a result matches the workload, precision and thread count."""
    key = {"decode": "depth", "prefill": "prompt", "batch": "sequences"}[work.phase]
    size = work.sequences if work.phase == "batch" else work.prompt
    expected = {"phase": work.phase, "precision": precision, "threads": threads, key: size}
    return all(result.get(name) == value for name, value in expected.items())


def checked_rate(result, work, wall_seconds):
    """Returns the tokens per second of a result; raises InvalidRun if its tokens and seconds disagree."""
    rate, tokens, seconds = (result.get(key) for key in ("tokens_per_second", "tokens", "seconds"))
    if not isinstance(rate, (int, float)) or not rate > 0:
        raise BenchFailed(f"{work.title}: hornbook bench reports {rate!r} tokens/s")
    if tokens is None or seconds is None:
        return rate
    min_tokens = work.prompt if work.phase == "prefill" else work.sequences
    if tokens < min_tokens or not 0 < seconds <= wall_seconds or abs(tokens / seconds / rate - 1) > 0.25:
        raise InvalidRun(
            f"{work.title}: hornbook bench reports {rate:.1f} tokens/s"
            f" for {tokens} tokens in {seconds:.3f} s,"
            f" but the run took {wall_seconds:.3f} s"
        )
    return rate
