"""The workloads, and the timing and checks common to all engines."""

import random
import time
from dataclasses import asdict, dataclass, replace


@dataclass(frozen=True)
class Workload:
    """Generates `tokens` tokens for each of `sequences` prompts of `prompt` tokens."""

    key: str
    title: str
    phase: str  # "decode", "prefill" or "batch"
    sequences: int
    prompt: int
    tokens: int
    repeats: int


WORKLOADS = [
    Workload("decode_32", "decode after 32", "decode", 1, 32, 64, 2),
    Workload("decode_896", "decode after 896", "decode", 1, 896, 32, 2),
    Workload("prefill_512", "prefill 512", "prefill", 1, 512, 1, 3),
    Workload("batch_8", "8 sequences", "batch", 8, 32, 32, 2),
]


def workloads(quick):
    """Returns the four workloads; with `quick`, fewer tokens and one repetition."""
    if not quick:
        return WORKLOADS
    return [replace(w, tokens=min(w.tokens, 9), repeats=1) for w in WORKLOADS]


class InvalidRun(Exception):
    """An engine did not do the work that is timed."""


class Engine:
    """A loaded model that decodes one token per step.

    Subclasses define `reserve`, `start`, `step` and `logits`. Decoding is greedy:
    each returned id is the argmax of that position's logits.
    """

    def reserve(self, sequences, length):
        """Allocates the KV cache for `sequences` of `length` tokens; not timed."""

    def start(self, prompts):
        """Runs prompts of equal length; returns the next id of each."""
        raise NotImplementedError

    def step(self, ids):
        """Appends one id to each sequence; returns the next id of each."""
        raise NotImplementedError

    def logits(self, prompt):
        """Returns the logits after the prompt's last token, float32 [vocab_size]."""
        raise NotImplementedError

    def generate(self, prompts, tokens):
        """Returns (ids per sequence, start time, time stamp of each step)."""
        self.reserve(len(prompts), len(prompts[0]) + tokens)
        start = time.perf_counter()
        columns = [self.start(prompts)]
        stamps = [time.perf_counter()]
        while len(columns) < tokens:
            columns.append(self.step(columns[-1]))
            stamps.append(time.perf_counter())
        return [list(ids) for ids in zip(*columns, strict=True)], start, stamps


def prompts(count, length, vocab_size):
    """Returns distinct random prompts, the same for every engine."""
    return [random.Random(s).choices(range(vocab_size - 1), k=length) for s in range(count)]


def check(workload, ids, stamps, vocab_size):
    """Raises InvalidRun unless every sequence has all tokens and the time stamps increase."""
    title, tokens, sequences = workload.title, workload.tokens, workload.sequences
    lengths = [len(sequence) for sequence in ids]
    if lengths != [tokens] * sequences:
        raise InvalidRun(f"{title}: generated {lengths}, expected {tokens} for each of {sequences}")
    if len(stamps) != tokens or any(b <= a for a, b in zip(stamps, stamps[1:])):
        raise InvalidRun(f"{title}: {len(stamps)} steps, expected {tokens} with increasing time stamps")
    if not all(0 <= id < vocab_size for sequence in ids for id in sequence):
        raise InvalidRun(f"{title}: a token id outside the vocabulary of {vocab_size}")


def measure(engine, workload, vocab_size):
    """Returns tokens per second, one sample per repetition.

    Prefill is timed up to the first new token; decode and batch are timed from
    there on, so neither includes the other's work.
    """
    samples = []
    batch = prompts(workload.sequences, workload.prompt, vocab_size)
    for _ in range(workload.repeats):
        ids, start, stamps = engine.generate(batch, workload.tokens)
        check(workload, ids, stamps, vocab_size)
        if workload.phase == "prefill":
            samples.append(workload.prompt / (stamps[0] - start))
        else:
            samples.append(workload.sequences * (workload.tokens - 1) / (stamps[-1] - stamps[0]))
    return samples


def describe(workload):
    """Returns the workload as a dictionary for the JSON report."""
    return asdict(workload)
