"""Hornbook itself, through its own `hornbook bench`.

What is read from the JSON object it prints with --json:

    {"results": [{"precision": "f32", "threads": 2, "phase": "decode", "depth": 32,
                  "tokens": 64, "seconds": 1.02, "tokens_per_second": 62.7}, ...]}

`phase` is "decode" (with `depth`, the tokens of context before the clock
starts), "prefill" (with `prompt`, tokens) or "batch" (with `sequences`, and
`tokens_per_second` of all together). `tokens` and `seconds`, those of one timed
run, may be left out; where they are named, they must bear the figure out. Other
results and keys are passed over. What no bench can be asked about itself is
checked by `hornbook generate`: that it writes the tokens, and of this model.
"""

import json
import shutil
import subprocess
import time
from pathlib import Path

from .workload import WrongCount

PRECISIONS = {name: name for name in ("f32", "f16", "bf16", "bf16-dot", "int8", "int4")}
BUILT = Path(__file__).resolve().parents[2] / "target" / "release" / "hornbook"
LIMIT_SECONDS = 900
CHECK_TOKENS = 64


class BenchFailed(Exception):
    """`hornbook bench` gave no figures; in one line."""


def find(given):
    """The binary: the one given, else the one built here, else the one on PATH; None if there is none."""
    if given:
        return given if given.is_file() else None
    if BUILT.is_file():
        return BUILT
    found = shutil.which("hornbook")
    return Path(found) if found else None


def version(binary):
    try:
        run = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return run.stdout.strip().removeprefix("hornbook ") or None


def run(binary, subcommand, checkpoint, precision, threads, *rest):
    """(standard output, seconds) of one command."""
    options = ["--model", str(checkpoint.folder), "--precision", precision, "--threads", str(threads)]
    begun = time.perf_counter()
    try:
        done = subprocess.run(
            [binary, subcommand, *options, *rest], capture_output=True, text=True, timeout=LIMIT_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise BenchFailed(f"hornbook {subcommand} did not end in {LIMIT_SECONDS} s") from None
    except OSError as error:
        raise BenchFailed(f"{binary}: {error.strerror}") from None
    if done.returncode:
        said = [line for line in done.stderr.split("\n") if line.strip()] or ["nothing on standard error"]
        raise BenchFailed(f"hornbook {subcommand} ended with status {done.returncode}: {said[0]}")
    return done.stdout, time.perf_counter() - begun


def check_generate(binary, checkpoint, precision, threads, prompt, next_id):
    """Raise WrongCount unless greedy decoding writes every token it is asked for.

    In f32 the first must be `next_id`, the reference's; coarser weights may turn a choice.
    """
    asked = ["--max-tokens", str(CHECK_TOKENS), "--min-tokens", str(CHECK_TOKENS), "--temperature", "0"]
    ids = ["--prompt-ids", ",".join(map(str, prompt)), "--output", "ids"]
    said, _ = run(binary, "generate", checkpoint, precision, threads, *ids, *asked)
    written = [part.strip() for part in said.split(",") if part.strip()]
    if len(written) != CHECK_TOKENS or not all(part.isdecimal() for part in written):
        raise WrongCount(f"hornbook generate wrote {len(written)} ids, expected {CHECK_TOKENS}")
    if precision == "f32" and int(written[0]) != next_id:
        raise WrongCount(f"hornbook generate wrote {written[0]} first, expected {next_id}: not the same model")


def turn(binary, checkpoint, precision, threads, works):
    """Workload key -> tokens per second, from one run of the bench."""
    said, wall = run(binary, "bench", checkpoint, precision, threads, "--json")
    try:
        results = json.loads(said)["results"]
    except (json.JSONDecodeError, KeyError, TypeError):
        raise BenchFailed("hornbook bench printed no JSON object with `results`") from None
    found = {}
    for work in works:
        for result in results:
            if matches(result, work, precision, threads):
                found[work.key] = checked(result, work, wall)
                break
    return found


def matches(result, work, precision, threads):
    """Whether this result is this workload at this precision and thread count."""
    key = {"decode": "depth", "prefill": "prompt", "batch": "sequences"}[work.phase]
    size = work.sequences if work.phase == "batch" else work.prompt
    wanted = {"phase": work.phase, "precision": precision, "threads": threads, key: size}
    return all(result.get(name) == value for name, value in wanted.items())


def checked(result, work, wall):
    """Its tokens per second, unless the tokens and seconds that it names say otherwise."""
    rate, tokens, seconds = (result.get(key) for key in ("tokens_per_second", "tokens", "seconds"))
    if not isinstance(rate, (int, float)) or not rate > 0:
        raise BenchFailed(f"{work.title}: hornbook bench reports {rate!r} tokens/s")
    if tokens is None or seconds is None:
        return rate
    least = work.prompt if work.phase == "prefill" else work.sequences
    if tokens < least or not 0 < seconds <= wall or abs(tokens / seconds / rate - 1) > 0.25:
        raise WrongCount(
            f"{work.title}: hornbook bench claims {rate:.1f} tokens/s from {tokens} tokens in {seconds:.3f} s,"
            f" of a run that took {wall:.3f} s"
        )
    return rate
