#!/usr/bin/env python3
"""Benchmark Hornbook and other CPU engines on the same random GPT-2 124M.

Four workloads: decode after 32 tokens of context, decode after 896, prefill of
512, and batched decode of 8 sequences. Rounds are interleaved (A B C, A B C),
each engine runs in its own process with the same number of threads, and medians
are reported. Each engine's logits are first compared with a numpy reference,
and each run must return as many tokens as it is timed for. Installs nothing: for
a missing engine the `pip install` command is printed, and it is skipped.
"""

import argparse
import importlib.util
import json
import sys
import tempfile
from datetime import date
from pathlib import Path

from peers import ENGINES, chart, checkpoint, engine, hornbook, machine, missing, table
from peers.worker import Worker, WorkerFailed, serve
from peers.workload import InvalidRun, describe, prompts, workloads

EXAMPLES = """examples:
  python scripts/compare_peers.py --quick
  python scripts/compare_peers.py --rounds 5 --threads 4
  python scripts/compare_peers.py --engines hornbook,llama.cpp --precisions int8,int4
  python scripts/compare_peers.py --skip pytorch:bf16
  python scripts/compare_peers.py --from compare_peers.json     redraw table and chart

engines: hornbook, {engines}
precisions: {precisions}; each engine runs those it supports
"""

PRECISIONS = tuple(hornbook.PRECISIONS)

# Minimum correlation with the float32 logits: below it, the conversion is wrong.
MIN_CORRELATION = {"f32": 0.9999, "f16": 0.9999, "bf16": 0.999, "bf16-dot": 0.999, "int8": 0.99, "int4": 0.9}


def log(line):
    print(line, file=sys.stderr, flush=True)


class Candidate:
    """One engine in one precision, with its samples."""

    def __init__(self, name, precision):
        self.name, self.precision = name, precision
        native = hornbook.PRECISIONS if name == table.HORNBOOK else engine(name).PRECISIONS
        self.native = native[precision]
        self.samples = {}
        self.correlation = None
        self.error = None

    def add(self, key, samples):
        self.samples.setdefault(key, []).extend(samples)

    def row(self):
        return {
            "engine": self.name,
            "precision": self.precision,
            "native": self.native,
            "correlation_with_reference": self.correlation,
            "error": self.error,
            "results": {key: table.summary(samples) for key, samples in self.samples.items()},
        }


class Comparison:
    def __init__(self, args):
        import numpy as np

        self.args = args
        self.works = workloads(args.quick)
        self.cache = args.cache
        self.cache.mkdir(parents=True, exist_ok=True)
        self.model = checkpoint.build(self.cache / "gpt2")
        self.vocab_size = self.model.config["vocab_size"]
        self.prompt = prompts(1, 32, self.vocab_size)[0]
        self.reference = self.cache / "reference-logits.npy"
        if not self.reference.exists():
            np.save(self.reference, checkpoint.reference_logits(self.model, self.prompt))
        self.next_id = int(np.load(self.reference).argmax())
        self.binary = hornbook.find(args.hornbook)

    def candidates(self):
        """The candidates that can run; logs one line for each that cannot."""
        found = []
        for name in self.args.engines:
            if name == table.HORNBOOK:
                if not self.binary:
                    where = self.args.hornbook or hornbook.BUILT
                    log(f"hornbook: skipped, no binary at {where}: run cargo build --release")
                    continue
                supported = hornbook.PRECISIONS
            else:
                packages = missing(name)
                if packages:
                    log(f"{name}: skipped, run: pip install {' '.join(packages)}")
                    continue
                supported = engine(name).PRECISIONS
            wanted = [precision for precision in self.args.precisions if precision in supported]
            found += [Candidate(name, p) for p in wanted if f"{name}:{p}" not in self.args.skip]
        return found

    def path(self, candidate):
        """The path of an engine's converted model; llama.cpp requires the extension."""
        extension = ".gguf" if candidate.name == "llama.cpp" else ""
        return self.cache / f"{candidate.name}-{candidate.precision}{extension}"

    def prepare(self, candidate):
        """Converts the model once; Hornbook reads the original, so its generation is checked instead."""
        path = self.path(candidate)
        if candidate.name == table.HORNBOOK:
            threads = self.args.threads
            args = (self.binary, self.model, candidate.precision, threads)
            hornbook.check_generate(*args, self.prompt, self.next_id)
            return
        if path.exists():
            return
        log(f"converting: {candidate.name} {candidate.native}")
        with Worker(candidate.name, self.args.threads) as worker:
            worker.request(
                command="prepare",
                checkpoint=str(self.model.folder),
                cache=str(self.cache),
                precision=candidate.precision,
                path=str(path),
            )

    def measure(self, candidate):
        """Measures one engine in one round."""
        if candidate.name == table.HORNBOOK:
            args = (self.binary, self.model, candidate.precision, self.args.threads)
            rates = hornbook.measure(*args, self.works)
            missing_works = [work.title for work in self.works if work.key not in rates]
            if missing_works:
                log(f"  hornbook bench reported no result for: {', '.join(missing_works)}")
            for key, rate in rates.items():
                candidate.add(key, [rate])
            return
        with Worker(candidate.name, self.args.threads) as worker:
            candidate.correlation = worker.request(
                command="load",
                path=str(self.path(candidate)),
                precision=candidate.precision,
                threads=self.args.threads,
                config=self.model.config,
                prompt=self.prompt,
                reference=str(self.reference),
            )["correlation"]
            if not candidate.correlation >= MIN_CORRELATION[candidate.precision]:
                raise InvalidRun(
                    f"the logits' correlation with the reference is {candidate.correlation:.4f},"
                    f" expected {MIN_CORRELATION[candidate.precision]} or more: wrong conversion"
                )
            for work in self.works:
                candidate.add(work.key, worker.request(command="measure", work=describe(work))["samples"])

    def bandwidth(self):
        """Read bandwidth in bytes per second, measured in every round to expose other load."""
        with Worker(machine.WORKER, 1) as worker:
            return worker.request(command="bandwidth", threads=self.args.threads)["bytes_per_second"]

    def attempt(self, action, candidate):
        """Returns whether the action succeeded; an engine that fails is excluded from later rounds."""
        try:
            action(candidate)
        except (WorkerFailed, InvalidRun, hornbook.BenchFailed) as error:
            candidate.error = str(error)
            log(f"{candidate.name} {candidate.native}: {error}")
        return candidate.error is None

    def versions(self, names):
        """Returns {package: version} of the engines, in order."""
        found = {}
        for name in names:
            if name == table.HORNBOOK:
                found[name] = hornbook.version(self.binary) or "(unknown version)"
            else:
                found |= machine.versions(engine(name).PACKAGES.values())
        return found

    def run(self):
        """Runs all rounds and returns the report, as written to the JSON."""
        candidates = self.candidates()
        active = [candidate for candidate in candidates if self.attempt(self.prepare, candidate)]
        if (load := machine.load()) > 0.5:
            log(f"warning: the machine is busy (load average {load:.1f}): results will be low and noisy")
        bandwidth, interrupted = [], False
        try:
            for round_number in range(1, self.args.rounds + 1):
                bandwidth.append(self.bandwidth())
                for candidate in list(active):
                    log(f"round {round_number} of {self.args.rounds}: {candidate.name} {candidate.native}")
                    if not self.attempt(self.measure, candidate):
                        active.remove(candidate)
        except KeyboardInterrupt:
            interrupted = True
            log("interrupted: reporting the results so far")
        report = {
            "date": date.today().isoformat(),
            "machine": machine.describe(),
            "threads": self.args.threads,
            "rounds": len(bandwidth),
            "quick": self.args.quick,
            "interrupted": interrupted,
            "read_bandwidth": bandwidth,
            "versions": self.versions({candidate.name: None for candidate in candidates}),
            "workloads": [describe(work) for work in self.works],
            "rows": [candidate.row() for candidate in candidates],
        }
        return report | {"ratios": table.ratios(report)}


def listed(choices):
    """Returns an argument type: comma-separated names from `choices`."""

    def parse(value):
        names = [name.strip() for name in value.split(",")]
        for name in names:
            if name not in choices:
                raise argparse.ArgumentTypeError(f"{name!r}: expected one of {', '.join(choices)}")
        return list(dict.fromkeys(names))

    return parse


def positive_int(value):
    if not value.isdecimal() or int(value) < 1:
        raise argparse.ArgumentTypeError(f"{value!r} is not a positive integer")
    return int(value)


def arguments():
    engines = (table.HORNBOOK, *ENGINES)
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLES.format(engines=", ".join(ENGINES), precisions=", ".join(PRECISIONS)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default_cache = Path(tempfile.gettempdir()) / "hornbook-peers"

    def option(flag, help, **rest):
        parser.add_argument(flag, help=help, **rest)

    names = {"metavar": "A,B", "help": "default: all"}
    parser.add_argument("--engines", type=listed(engines), default=list(engines), **names)
    parser.add_argument("--precisions", type=listed(PRECISIONS), default=list(PRECISIONS), **names)
    pairs = [f"{name}:{precision}" for name in engines for precision in PRECISIONS]
    skip = {"metavar": "ENGINE:PRECISION,...", "type": listed(pairs), "default": []}
    option("--skip", "combinations to skip, such as bf16 on a CPU without bf16 instructions", **skip)
    count = {"metavar": "N", "type": positive_int}
    option("--threads", "threads of every engine (default: all cores)", default=machine.cores(), **count)
    option("--rounds", "rounds (default: 5)", default=5, **count)
    option("--quick", "fewer tokens, one repetition: a smoke test, not a benchmark", action="store_true")
    path = {"type": Path, "metavar": "PATH"}
    option(
        "--cache",
        f"folder for the models, about 4 GB (default: {default_cache})",
        default=default_cache,
        **path,
    )
    option("--hornbook", "the hornbook binary (default: target/release, then PATH)", **path)
    option("--out", "folder for the JSON and the SVG (default: current folder)", default=Path(), **path)
    option("--from", "redraw the JSON of an earlier run instead of measuring", dest="earlier", **path)
    option("--worker", argparse.SUPPRESS)
    return parser.parse_args()


def main():
    args = arguments()
    if args.worker:
        serve(args.worker)
        return
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        if args.earlier:
            report = json.loads(args.earlier.read_text())
        else:
            if importlib.util.find_spec("numpy") is None:
                sys.exit("compare_peers.py: numpy is not installed: pip install numpy")
            report = Comparison(args).run()
            (args.out / "compare_peers.json").write_text(json.dumps(report, indent=1) + "\n")
        if not any(row["results"] for row in report["rows"]):
            sys.exit("compare_peers.py: no engine could be measured")
        (args.out / "compare_peers.svg").write_text(chart.render(report))
    except (OSError, ValueError, WorkerFailed) as error:
        sys.exit(f"compare_peers.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    print(table.render(report))
    print()
    print("\n".join(table.footnotes(report)))


if __name__ == "__main__":
    main()
