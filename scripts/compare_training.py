#!/usr/bin/env python3
"""Compare the training speed and memory of Hornbook and PyTorch on the same shapes.

A step is the forward and backward pass of one micro-batch of random tokens, the norm of
the gradient, and AdamW. PyTorch runs transformers' GPT2LMHeadModel with sdpa and fused
AdamW, without dropout, in f32 and in bf16 autocast, each eager and compiled. In every
round each variant runs in a process of its own, one after the other; reported are medians
over the rounds, and the median of the ratios of a round. A variant that fails is skipped
with its reason. Installs nothing: PyTorch and transformers must be there.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from peers import hornbook, machine

EXAMPLES = """examples:
  python scripts/compare_training.py
  python scripts/compare_training.py --shapes fable --rounds 7 --threads 2
  python scripts/compare_training.py --variants f32,compiled-f32 --json training.json
"""

# Hornbook's options, the model's shape, and sequences x tokens of a step.
SHAPES = {
    "fable": (["--model", "fable"], dict(n_layer=6, n_embd=256, n_head=4, vocab_size=4096), 16, 512),
    "gpt2": (["--shape", "gpt2"], dict(n_layer=12, n_embd=768, n_head=12, vocab_size=50257), 4, 512),
}
VARIANTS = ("f32", "compiled-f32", "bf16", "compiled-bf16")
HORNBOOK = "hornbook"


def log(line):
    print(line, file=sys.stderr, flush=True)


def train_with_torch(shape, variant, threads, steps):
    """Runs in a process of its own: prints the seconds of each step after two steps of warm-up."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    _, sizes, sequences, context = SHAPES[shape]
    config = GPT2Config(**sizes, n_positions=context, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    model = GPT2LMHeadModel._from_config(config, attn_implementation="sdpa").train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, betas=(0.9, 0.95), fused=True)
    ids = torch.randint(config.vocab_size, (sequences, context + 1))

    def loss():
        with torch.autocast("cpu", torch.bfloat16, enabled="bf16" in variant):
            logits = model(ids[:, :-1], use_cache=False).logits
            return torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())

    if "compiled" in variant:
        loss = torch.compile(loss)

    def step():
        start = time.perf_counter()
        loss().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return time.perf_counter() - start

    for _ in range(2):
        step()
    print(json.dumps({"seconds": median(step() for _ in range(steps))}))


class Failed(Exception):
    """A variant could not be measured; the message is one line."""


def run(command, timeout):
    """Runs a command; returns (the JSON it printed, its peak memory in bytes)."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        output, errors = communicate(process, timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise Failed(f"no result within {timeout} s") from None
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        lines = [line for line in errors.splitlines() if line.strip()]
        raise Failed(lines[-1] if lines else f"exit status {process.returncode}")
    return json.loads(output), usage.ru_maxrss * 1024


def communicate(process, timeout):
    """Reads both streams to their ends, without waiting for the process: that takes its memory."""
    from concurrent.futures import ThreadPoolExecutor, TimeoutError

    pool = ThreadPoolExecutor(2)
    streams = [pool.submit(stream.read) for stream in (process.stdout, process.stderr)]
    try:
        return [stream.result(timeout) for stream in streams]
    except TimeoutError:
        raise subprocess.TimeoutExpired(process.args, timeout) from None
    finally:
        pool.shutdown(wait=False)


def measure(name, shape, args):
    """Returns {tokens_per_second, memory_bytes} of one run, for Hornbook also fraction_of_peak."""
    options, _, sequences, context = SHAPES[shape]
    if name == HORNBOOK:
        size = ["--batch", sequences, "--context", context, "--threads", args.threads]
        command = [args.binary, "bench", "train", *options, *size, "--repeat", args.steps, "--json"]
        report, memory = run([str(part) for part in command], args.timeout)
        result = report["results"][0]
        return {
            "tokens_per_second": result["tokens_per_second"],
            "memory_bytes": memory,
            "fraction_of_peak": result["fraction_of_peak"],
        }
    worker = ["--worker", f"{shape}:{name}:{args.threads}:{args.steps}"]
    report, memory = run([sys.executable, __file__, *worker], args.timeout)
    return {"tokens_per_second": sequences * context / report["seconds"], "memory_bytes": memory}


def compare(args):
    """Returns the samples, {shape: {name: [result of each round]}}."""
    samples, failed = {shape: {} for shape in args.shapes}, set()
    for round_number in range(1, args.rounds + 1):
        for shape in args.shapes:
            for name in (HORNBOOK, *args.variants):
                if (shape, name) in failed:
                    continue
                log(f"round {round_number} of {args.rounds}: {shape}, {name}")
                try:
                    samples[shape].setdefault(name, []).append(measure(name, shape, args))
                except Failed as error:
                    log(f"{shape}, {name}: skipped: {error}")
                    failed.add((shape, name))
    return samples


def render(samples):
    """Returns the table in Markdown."""
    lines = [
        "| shape | engine | tokens/s | lowest to highest | peak memory | Hornbook is faster by |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for shape, rows in samples.items():
        _, _, sequences, context = SHAPES[shape]
        ours = [result["tokens_per_second"] for result in rows.get(HORNBOOK, [])]
        for name, results in rows.items():
            rates = [result["tokens_per_second"] for result in results]
            memory = max(result["memory_bytes"] for result in results)
            ratio = ""
            if ours and name != HORNBOOK:
                ratio = f"{median(a / b for a, b in zip(ours, rates)):.2f} ×"
            label = HORNBOOK if name == HORNBOOK else f"PyTorch {name.replace('-', ' ')}"
            cells = [f"{shape}, {sequences} × {context}", label, f"{median(rates):,.0f}"]
            cells += [f"{min(rates):,.0f} to {max(rates):,.0f}", f"{memory / 1e9:.2f} GB", ratio]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def names(choices):
    def parse(value):
        found = value.split(",")
        unknown = [name for name in found if name not in choices]
        if unknown:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not one of {', '.join(choices)}")
        return found

    return parse


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option("--shapes", type=names(SHAPES), default=list(SHAPES), metavar="A,B", help="default: all")
    option("--variants", type=names(VARIANTS), default=VARIANTS, metavar="A,B", help="default: all")
    option("--threads", type=int, default=machine.cores(), metavar="N", help="default: all cores")
    option("--rounds", type=int, default=5, metavar="N", help="default: 5")
    option("--steps", type=int, default=3, metavar="N", help="timed steps in a round (default: 3)")
    option("--timeout", type=int, default=600, metavar="S", help="seconds a run may take (default: 600)")
    option("--hornbook", type=Path, metavar="PATH", help="default: target/release, then PATH")
    option("--json", type=Path, metavar="PATH", help="also write the samples")
    option("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    args = arguments()
    if args.worker:
        shape, variant, threads, steps = args.worker.split(":")
        return train_with_torch(shape, variant, int(threads), int(steps))
    args.binary = hornbook.find(args.hornbook)
    if not args.binary:
        sys.exit("compare_training.py: no hornbook binary: run cargo build --release")
    if (load := machine.load()) > 0.5:
        log(f"warning: the machine is busy (load average {load:.1f}): results will be low and noisy")
    samples = compare(args)
    if args.json:
        args.json.write_text(json.dumps(samples, indent=1) + "\n")
    about = machine.describe()
    found = machine.versions(["torch", "transformers"])
    versions = ", ".join(f"{name} {version}" for name, version in found.items())
    print(render(samples))
    print(f"\n{about['cpu']}, {args.threads} threads on {about['cores']} cores, {about['system']}")
    print(versions)


if __name__ == "__main__":
    main()
