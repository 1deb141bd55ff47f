"""What is measured, and how: the same clock and the same checks for every engine."""

import random
import time
from dataclasses import asdict, dataclass, replace


@dataclass(frozen=True)
class Workload:
    """`sequences` prompts of `prompt` tokens, each continued by `tokens` tokens."""

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
    """The four workloads; quick ones generate fewer tokens, once."""
    if not quick:
        return WORKLOADS
    return [replace(w, tokens=min(w.tokens, 9), repeats=1) for w in WORKLOADS]


class WrongCount(Exception):
    """An engine did not do the work it was to be timed for."""


class Engine:
    """A loaded model that goes one token at a time.

    Subclasses define `reserve`, `start`, `step` and `logits`. Greedy decoding:
    every id returned is the argmax of that position's logits.
    """

    def reserve(self, sequences, length):
        """Make room for `sequences` of `length` tokens; outside the clock."""

    def start(self, prompts):
        """Run prompts of one length; the next id of each."""
        raise NotImplementedError

    def step(self, ids):
        """Append one id to each sequence; the next id of each."""
        raise NotImplementedError

    def logits(self, prompt):
        """Logits after the prompt's last token, float32 [vocab_size]."""
        raise NotImplementedError

    def generate(self, prompts, tokens):
        """(ids per sequence, when the clock started, when each step's tokens were known)."""
        self.reserve(len(prompts), len(prompts[0]) + tokens)
        begun = time.perf_counter()
        columns = [self.start(prompts)]
        stamps = [time.perf_counter()]
        while len(columns) < tokens:
            columns.append(self.step(columns[-1]))
            stamps.append(time.perf_counter())
        return [list(ids) for ids in zip(*columns, strict=True)], begun, stamps


def prompts(count, length, vocab_size):
    """Different prompts, the same for every engine."""
    return [random.Random(s).choices(range(vocab_size - 1), k=length) for s in range(count)]


def check(workload, ids, stamps, vocab_size):
    """Raise WrongCount unless every sequence has every token, each with its own time."""
    title, tokens, sequences = workload.title, workload.tokens, workload.sequences
    lengths = [len(sequence) for sequence in ids]
    if lengths != [tokens] * sequences:
        raise WrongCount(f"{title}: generated {lengths}, expected {tokens} for each of {sequences}")
    if len(stamps) != tokens or any(b <= a for a, b in zip(stamps, stamps[1:])):
        raise WrongCount(f"{title}: {len(stamps)} steps, expected {tokens}, each after the one before")
    if not all(0 <= id < vocab_size for sequence in ids for id in sequence):
        raise WrongCount(f"{title}: a token id beyond the vocabulary of {vocab_size}")


def measure(engine, workload, vocab_size):
    """Tokens per second, one figure a repeat.

    Prefill is the time to the first next token; decode and batch are the steps
    after it, so that neither counts the other's work.
    """
    samples = []
    given = prompts(workload.sequences, workload.prompt, vocab_size)
    for _ in range(workload.repeats):
        ids, begun, stamps = engine.generate(given, workload.tokens)
        check(workload, ids, stamps, vocab_size)
        if workload.phase == "prefill":
            samples.append(workload.prompt / (stamps[0] - begun))
        else:
            samples.append(workload.sequences * (workload.tokens - 1) / (stamps[-1] - stamps[0]))
    return samples


def describe(workload):
    """For the JSON."""
    return asdict(workload)
