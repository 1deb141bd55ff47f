#!/usr/bin/env python3
"""Measure Hornbook beside other CPU engines, all running the same random GPT-2 124M.

Four workloads: decode after 32 tokens of context, decode after 896, prefill of
512, and 8 sequences decoding together. Engines take turns (A B C, A B C), each
in a process of its own with the same number of threads; medians are reported.
Each engine's logits are first held against the plain formula in numpy, and each
run must return as many tokens as it is timed for. Installs nothing: a peer that
is missing is named with its `pip install`, and the others are measured.
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
from peers.workload import WrongCount, describe, prompts, workloads

EXAMPLES = """examples:
  python scripts/compare_peers.py --quick
  python scripts/compare_peers.py --rounds 5 --threads 4
  python scripts/compare_peers.py --engines hornbook,llama.cpp --precisions int8,int4
  python scripts/compare_peers.py --skip pytorch:bf16
  python scripts/compare_peers.py --from compare_peers.json     draw table and chart again

engines: hornbook, {engines}
precisions: {precisions}; each engine runs those it has
"""

PRECISIONS = tuple(hornbook.PRECISIONS)

# Least correlation with the float32 logits: below it, an engine runs another model.
SAME_MODEL = {"f32": 0.9999, "f16": 0.9999, "bf16": 0.999, "bf16-dot": 0.999, "int8": 0.99, "int4": 0.9}


def say(line):
    print(line, file=sys.stderr, flush=True)


class Entrant:
    """One engine in one precision, and what it was measured at."""

    def __init__(self, name, precision):
        self.name, self.precision = name, precision
        native = hornbook.PRECISIONS if name == table.HORNBOOK else engine(name).PRECISIONS
        self.native = native[precision]
        self.samples = {}
        self.correlation = None
        self.failed = None

    def add(self, key, samples):
        self.samples.setdefault(key, []).extend(samples)

    def row(self):
        return {
            "engine": self.name,
            "precision": self.precision,
            "native": self.native,
            "correlation_with_reference": self.correlation,
            "failed": self.failed,
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

    def entrants(self):
        """Those that can run here; one line for each that cannot."""
        found = []
        for name in self.args.engines:
            if name == table.HORNBOOK:
                if not self.binary:
                    where = self.args.hornbook or hornbook.BUILT
                    say(f"hornbook: not measured, no binary at {where}: cargo build --release, or use --hornbook")
                    continue
                has = hornbook.PRECISIONS
            else:
                lacking = missing(name)
                if lacking:
                    say(f"{name}: not measured, it needs: pip install {' '.join(lacking)}")
                    continue
                has = engine(name).PRECISIONS
            wanted = [precision for precision in self.args.precisions if precision in has]
            found += [Entrant(name, p) for p in wanted if f"{name}:{p}" not in self.args.skip]
        return found

    def path(self, entrant):
        """Where an engine's converted model lies; llama.cpp wants the ending."""
        ending = ".gguf" if entrant.name == "llama.cpp" else ""
        return self.cache / f"{entrant.name}-{entrant.precision}{ending}"

    def prepare(self, entrant):
        """Convert the model, once; Hornbook reads it as it is and is asked to write from it instead."""
        path = self.path(entrant)
        if entrant.name == table.HORNBOOK:
            threads = self.args.threads
            args = (self.binary, self.model, entrant.precision, threads)
            hornbook.check_generate(*args, self.prompt, self.next_id)
            return
        if path.exists():
            return
        say(f"converting: {entrant.name} {entrant.native}")
        with Worker(entrant.name, self.args.threads) as worker:
            worker.ask(
                do="prepare",
                checkpoint=str(self.model.folder),
                cache=str(self.cache),
                precision=entrant.precision,
                path=str(path),
            )

    def turn(self, entrant):
        """One engine's turn of a round."""
        if entrant.name == table.HORNBOOK:
            args = (self.binary, self.model, entrant.precision, self.args.threads)
            figures = hornbook.turn(*args, self.works)
            lacking = [work.title for work in self.works if work.key not in figures]
            if lacking:
                say(f"  hornbook bench reported nothing for: {', '.join(lacking)}")
            for key, figure in figures.items():
                entrant.add(key, [figure])
            return
        with Worker(entrant.name, self.args.threads) as worker:
            entrant.correlation = worker.ask(
                do="load",
                path=str(self.path(entrant)),
                precision=entrant.precision,
                threads=self.args.threads,
                config=self.model.config,
                prompt=self.prompt,
                reference=str(self.reference),
            )["correlation"]
            if not entrant.correlation >= SAME_MODEL[entrant.precision]:
                raise WrongCount(
                    f"its logits correlate {entrant.correlation:.4f} with the reference,"
                    f" expected {SAME_MODEL[entrant.precision]} or more: not the same model"
                )
            for work in self.works:
                entrant.add(work.key, worker.ask(do="measure", work=describe(work))["samples"])

    def bandwidth(self):
        """Bytes a second, measured between rounds so that a busy machine shows."""
        with Worker(machine.WORKER, 1) as worker:
            return worker.ask(do="bandwidth", threads=self.args.threads)["bytes_per_second"]

    def attempt(self, action, entrant):
        """Whether it went well; an engine that fails once is left out of later rounds."""
        try:
            action(entrant)
        except (WorkerFailed, WrongCount, hornbook.BenchFailed) as error:
            entrant.failed = str(error)
            say(f"{entrant.name} {entrant.native}: {error}")
        return entrant.failed is None

    def versions(self, names):
        """Package -> version, of the engines in order."""
        found = {}
        for name in names:
            if name == table.HORNBOOK:
                found[name] = hornbook.version(self.binary) or "of unknown version"
            else:
                found |= machine.versions(engine(name).PACKAGES.values())
        return found

    def run(self):
        """The report, as written to the JSON."""
        entrants = self.entrants()
        going = [entrant for entrant in entrants if self.attempt(self.prepare, entrant)]
        if (load := machine.load()) > 0.5:
            say(f"other programs are busy here (load {load:.1f}): figures will be low and uneven")
        bandwidth, interrupted = [], False
        try:
            for number in range(1, self.args.rounds + 1):
                bandwidth.append(self.bandwidth())
                for entrant in list(going):
                    say(f"round {number} of {self.args.rounds}: {entrant.name} {entrant.native}")
                    if not self.attempt(self.turn, entrant):
                        going.remove(entrant)
        except KeyboardInterrupt:
            interrupted = True
            say("interrupted: this is what was measured until here")
        report = {
            "date": date.today().isoformat(),
            "machine": machine.describe(),
            "threads": self.args.threads,
            "rounds": len(bandwidth),
            "quick": self.args.quick,
            "interrupted": interrupted,
            "read_bandwidth": bandwidth,
            "versions": self.versions({entrant.name: None for entrant in entrants}),
            "workloads": [describe(work) for work in self.works],
            "rows": [entrant.row() for entrant in entrants],
        }
        return report | {"ratios": table.ratios(report)}


def listed(choices):
    """An argument type: names from `choices`, separated by commas."""

    def parse(value):
        names = [name.strip() for name in value.split(",")]
        for name in names:
            if name not in choices:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(choices)}")
        return list(dict.fromkeys(names))

    return parse


def at_least_one(value):
    if not value.isdecimal() or int(value) < 1:
        raise argparse.ArgumentTypeError(f"{value!r} is not a whole number of 1 or more")
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

    some = {"metavar": "A,B", "help": "default: all"}
    parser.add_argument("--engines", type=listed(engines), default=list(engines), **some)
    parser.add_argument("--precisions", type=listed(PRECISIONS), default=list(PRECISIONS), **some)
    pairs = [f"{name}:{precision}" for name in engines for precision in PRECISIONS]
    skip = {"metavar": "ENGINE:PRECISION,...", "type": listed(pairs), "default": []}
    option("--skip", "leave these out, such as what takes minutes without an instruction for it", **skip)
    count = {"metavar": "N", "type": at_least_one}
    option("--threads", "of every engine (default: all cores)", default=machine.cores(), **count)
    option("--rounds", "turns of every engine (default: 5)", default=5, **count)
    option("--quick", "fewer tokens, one repeat: to see it work, not to quote", action="store_true")
    path = {"type": Path, "metavar": "PATH"}
    option("--cache", f"the models, about 4 GB (default: {default_cache})", default=default_cache, **path)
    option("--hornbook", "the binary (default: target/release, else the one on PATH)", **path)
    option("--out", "folder for the JSON and the SVG (default: here)", default=Path(), **path)
    option("--from", "measure nothing: draw an earlier run's JSON again", dest="earlier", **path)
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
                sys.exit("compare_peers.py: numpy is missing: pip install numpy")
            report = Comparison(args).run()
            (args.out / "compare_peers.json").write_text(json.dumps(report, indent=1) + "\n")
        if not any(row["results"] for row in report["rows"]):
            sys.exit("compare_peers.py: nothing could be measured")
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
