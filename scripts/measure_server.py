#!/usr/bin/env python3
"""Measure `hornbook serve` from outside, as its clients find it.

Throughput of 1, 2, 4, 8 and 16 streams together; one stream beside `hornbook
generate`; the time to the first token of short prompts while 7 streams run; 64
clients at once on a queue of 64; and, with --soak, memory before and after
minutes of every kind of request, many of them cut off halfway. Needs the
standard library alone. Another OpenAI-compatible server is measured in the same
way by its address, with prompts of words instead of token ids.
"""

import argparse
import json
import os
import platform
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import urlsplit

EXAMPLES = """examples:
  python scripts/make_random_gpt2.py /tmp/random
  python scripts/measure_server.py --model /tmp/random --json > server.json
  python scripts/measure_server.py --model /tmp/random --precision int8 --rounds 5
  python scripts/measure_server.py --only throughput,first-token --quick
  python scripts/measure_server.py --only none --soak 10
  python scripts/make_gguf.py --help                          how to start llama.cpp's server; then
  python scripts/measure_server.py --url http://127.0.0.1:9000/v1 --only throughput

measurements: {measurements}; none for the soak alone
"""

BUILT = Path(__file__).resolve().parents[1] / "target" / "release" / "hornbook"
MEASUREMENTS = ("throughput", "command-line", "first-token", "crowd")
STREAMS = (1, 2, 4, 8, 16)
# Longer than anything here takes.
PATIENCE = 600
WORDS = "the king and queen had a small house near old wood where many birds sang all day".split()


def say(line):
    print(line, file=sys.stderr, flush=True)


class Failed(Exception):
    """A request that was not answered as it must be; in one line."""


class Prompts:
    """Prompts that no two requests share, so that nothing is found in a cache."""

    def __init__(self, vocab_size, seed):
        self.vocab_size, self.random = vocab_size, random.Random(seed)

    def take(self, tokens):
        if self.vocab_size:
            return [self.random.randrange(self.vocab_size) for _ in range(tokens)]
        return " ".join(self.random.choice(WORDS) for _ in range(tokens))


class Stream:
    """One streamed completion: when its pieces came and how many tokens they were."""

    def __init__(self, server, prompt, tokens, cut_after=None):
        self.arrivals, self.tokens, self.reason, self.status = [], None, None, None
        # The names by which servers know "never end by yourself"; none minds the others'.
        body = {"model": server.model, "prompt": prompt, "max_tokens": tokens, "stream": True, "temperature": 1}
        body |= {"stream_options": {"include_usage": True}, "min_tokens": tokens, "ignore_eos": True}
        if server.vocab_size:
            body["return_token_ids"] = True  # a model without a tokenizer has no other pieces
        self.begun = time.perf_counter()
        connection = server.connect()
        try:
            connection.request("POST", server.path + "/completions", json.dumps(body), server.headers)
            response = connection.getresponse()
            self.status = response.status
            if response.status != 200:
                self.problem = response.read().decode(errors="replace")[:200]
                return
            for line in response:
                if not line.startswith(b"data: {"):
                    continue
                now, chunk = time.perf_counter(), json.loads(line[6:])
                if "error" in chunk:
                    raise Failed(f"a stream broke off: {chunk['error']}")
                if usage := chunk.get("usage"):
                    self.tokens = usage["completion_tokens"]
                if chunk["choices"]:
                    self.arrivals.append(now)
                    self.reason = chunk["choices"][0]["finish_reason"]
                if cut_after is not None and len(self.arrivals) >= cut_after:
                    return
        finally:
            connection.close()
        # A server that tells no usage has written all it was asked for where that is why it ended.
        if self.tokens is None and self.reason == "length":
            self.tokens = tokens

    def checked(self, tokens):
        if self.status != 200:
            raise Failed(f"status {self.status}: {self.problem}")
        if self.tokens != tokens:
            raise Failed(f"a stream of {self.tokens} tokens that ended by {self.reason}, expected {tokens}")
        return self

    @property
    def first(self):
        return self.arrivals[0] - self.begun

    @property
    def ended(self):
        return self.arrivals[-1]

    def gaps(self):
        return [after - before for before, after in zip(self.arrivals, self.arrivals[1:])]


class Server:
    """Where requests go."""

    def __init__(self, url, model, vocab_size, pid=None):
        parts = urlsplit(url)
        self.host, self.path, self.model = parts.netloc, parts.path.rstrip("/"), model
        self.vocab_size, self.pid = vocab_size, pid
        self.headers = {"content-type": "application/json", "authorization": "Bearer any"}

    def connect(self):
        return HTTPConnection(self.host, timeout=PATIENCE)

    def post(self, path, body):
        """(status, text)"""
        connection = self.connect()
        try:
            connection.request("POST", self.path + path, json.dumps(body), self.headers)
            response = connection.getresponse()
            return response.status, response.read().decode(errors="replace")
        finally:
            connection.close()

    def memory(self):
        """Resident MiB of the process: its own, and of mapped files; and what the prefix cache has of it."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        kib = {name: int(value) for name, value in re.findall(r"^(Rss\w+):\s+(\d+) kB", text, re.MULTILINE)}
        found = {"own_mib": kib["RssAnon"] / 1024, "mapped_mib": kib["RssFile"] / 1024}
        connection = self.connect()
        try:
            connection.request("GET", "/metrics")  # Hornbook's own: it keeps so much on purpose
            page = connection.getresponse().read().decode(errors="replace")
        finally:
            connection.close()
        kept = re.findall(r"^hornbook_prefix_cache_bytes\S* (\S+)$", page, re.MULTILINE)
        return found | ({"prefix_cache_mib": sum(map(float, kept)) / 2**20} if kept else {})


@contextmanager
def serving(args):
    """The server to be measured, started where no address is given."""
    if args.url:
        yield Server(args.url, args.model, args.vocab_size, args.pid)
        return
    options = ["--model", args.model, "--port", "0", "--queue", str(args.queue), *machine_options(args)]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with open(log, "wb") as stderr:
            process = subprocess.Popen([args.hornbook, "serve", *options], stderr=stderr)
        try:
            until = time.monotonic() + PATIENCE
            while not (found := re.search(r"at (http://\S+/v1)", log.read_text())):
                if process.poll() is not None or time.monotonic() > until:
                    sys.exit(f"the server has not started; it wrote\n{log.read_text()}")
                time.sleep(0.05)
            yield Server(found.group(1), "any", args.vocab_size, process.pid)
            process.send_signal(signal.SIGINT)
            if process.wait(timeout=60) != 0:
                sys.exit(f"the server ended with {process.returncode}")
        finally:
            process.kill()
            process.wait()


def machine_options(args):
    options = ["--precision", args.precision] if args.precision else []
    return options + (["--threads", str(args.threads)] if args.threads else [])


def together(jobs):
    """Runs jobs on a thread each, and hands back what they return; the first failure is raised."""
    results, failures = [None] * len(jobs), []

    def run(i, job):
        try:
            results[i] = job()
        except (Failed, OSError, HTTPException, ValueError) as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=job) for job in enumerate(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise Failed(f"{len(failures)} of {len(jobs)} requests failed, the first: {failures[0]}")
    return results


def percentile(values, percent):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * percent / 100))]


def middle(values):
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def throughput(server, prompts, args):
    """Tokens a second of all streams, from the first request to the last token."""
    samples = {n: [] for n in STREAMS}
    for round_ in range(args.rounds):
        for n in STREAMS:
            say(f"throughput, round {round_ + 1} of {args.rounds}: {n} streams")
            asked = [prompts.take(32) for _ in range(n)]
            jobs = [lambda p=prompt: Stream(server, p, args.tokens).checked(args.tokens) for prompt in asked]
            streams = together(jobs)
            took = max(s.ended for s in streams) - min(s.begun for s in streams)
            samples[n].append(sum(s.tokens for s in streams) / took)
    alone = statistics.median(samples[1])
    rows = [{"streams": n, "tokens_per_second": middle(samples[n])} for n in STREAMS]
    return [row | {"times_one_stream": row["tokens_per_second"]["median"] / alone} for row in rows]


def command_line(server, prompts, args):
    """One stream, and the same from `hornbook generate`, in turns: tokens a second after the first token."""
    samples = {"http": [], "command_line": []}
    for round_ in range(args.rounds):
        say(f"beside the command line, round {round_ + 1} of {args.rounds}")
        prompt = prompts.take(32)
        stream = Stream(server, prompt, args.tokens).checked(args.tokens)
        if len(stream.arrivals) < 2:
            raise Failed(f"a stream of {args.tokens} tokens came in one piece, expected one for each token")
        samples["http"].append((args.tokens - 1) / (stream.ended - stream.arrivals[0]))
        command = [args.hornbook, "generate", "--prompt-ids", ",".join(map(str, prompt)), "--model", args.model]
        command += ["--max-tokens", str(args.tokens), "--min-tokens", str(args.tokens), "--output", "ids"]
        done = subprocess.run([*command, "--stats", *machine_options(args)], capture_output=True, text=True)
        found = re.search(r"per token .* (\d+) tokens, ([\d.]+) tokens/s", done.stderr)
        if done.returncode != 0 or not found or int(found.group(1)) != args.tokens:
            raise Failed(f"{' '.join(command[:2])}: {done.stderr.strip()}")
        samples["command_line"].append(float(found.group(2)))
    ratio = statistics.median(samples["http"]) / statistics.median(samples["command_line"])
    return {name: middle(values) for name, values in samples.items()} | {"http_of_command_line": ratio}


def first_token(server, prompts, args):
    """Short prompts while 7 streams run: milliseconds to the first token, and in steps of those streams."""
    alone = [Stream(server, prompts.take(8), 1).checked(1).first for _ in range(5)]
    over, waits, gaps = threading.Event(), [], []

    def run():
        while not over.is_set():
            # Longer than needed; cut off when the probes are done.
            stream = Stream(server, prompts.take(32), args.context - 64, cut_after=args.context // 4)
            gaps.extend(stream.gaps()[8:])

    threads = [threading.Thread(target=run, daemon=True) for _ in range(7)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    pauses = random.Random(args.seed)
    for probe in range(args.probes):
        if probe % 10 == 0:
            say(f"time to first token: {probe} of {args.probes} probes")
        waits.append(Stream(server, prompts.take(8), 1).checked(1).first)
        time.sleep(pauses.uniform(0.02, 0.15))
    over.set()
    for thread in threads:
        thread.join()
    step, own = statistics.median(gaps), statistics.median(alone)
    found = {f"p{percent}_ms": percentile(waits, percent) * 1e3 for percent in (50, 90, 99)}
    found |= {"alone_ms": own * 1e3, "step_of_7_ms": step * 1e3, "probes": len(waits)}
    return found | {f"p{p}_steps_beyond_alone": (percentile(waits, p) - own) / step for p in (50, 99)}


def crowd(server, prompts, args):
    """Clients that all come at once: how each was answered, and how long the last waited."""
    say(f"{args.clients} clients at once")
    asked = [prompts.take(32) for _ in range(args.clients)]
    begun = time.perf_counter()
    streams = together([lambda p=prompt: Stream(server, p, args.tokens) for prompt in asked])
    took, statuses = time.perf_counter() - begun, [stream.status for stream in streams]
    cut = sum(stream.status == 200 and stream.tokens != args.tokens for stream in streams)
    if cut or not set(statuses) <= {200, 429, 503}:
        raise Failed(f"{cut} streams were cut short, and the statuses are {sorted(set(statuses))}")
    counts = {str(status): statuses.count(status) for status in sorted(set(statuses))}
    return {"clients": args.clients, "queue": args.queue, "statuses": counts, "seconds": took}


def soak(server, args):
    """Minutes of every kind of request from 12 clients; resident memory before, on the way and after."""
    until, counts, lock = time.monotonic() + args.soak * 60, {}, threading.Lock()
    failures = []

    def once(prompts, dice):
        kind = dice.choice(["stream", "cut", "whole", "many", "scored", "embed", "wrong", "half a body"])
        prompt = prompts.take(dice.choice([1, 8, 60, args.context // 2]))
        if kind in ("stream", "cut"):
            tokens = dice.randrange(1, args.context // 3)
            cut_after = dice.randrange(1, tokens + 1) if kind == "cut" else None
            return kind, Stream(server, prompt, tokens, cut_after).status
        if kind == "half a body":
            with closing(server.connect()) as connection:
                connection.connect()
                connection.sock.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 99\r\n\r\n{")
                return kind, None
        body = {"model": server.model, "prompt": prompt, "max_tokens": dice.randrange(1, 40)}
        if kind == "embed":
            return kind, server.post("/embeddings", {"model": server.model, "input": [prompt] * 3})[0]
        extra = {"many": {"n": 4}, "scored": {"prompt": [prompt, prompt], "return_token_ids": True}}
        body |= extra.get(kind, {"temperature": "hot"} if kind == "wrong" else {})
        return kind, server.post("/completions", body)[0]

    def client(number):
        prompts, dice = Prompts(server.vocab_size, args.seed + number), random.Random(args.seed + number)
        while time.monotonic() < until:
            try:
                kind, status = once(prompts, dice)
            except (Failed, OSError, HTTPException, ValueError) as error:
                failures.append(f"{type(error).__name__}: {error}")
                continue
            with lock:
                counts[(kind, status)] = counts.get((kind, status), 0) + 1
            if status not in ({400} if kind == "wrong" else {200, 429, None}):
                failures.append(f"{kind}: status {status}")

    memory = [{"minute": 0.0} | server.memory()]
    threads = [threading.Thread(target=client, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    begun = time.monotonic()
    while any(thread.is_alive() for thread in threads):
        time.sleep(min(30, max(0.2, args.soak * 6)))
        memory.append({"minute": (time.monotonic() - begun) / 60} | server.memory())
        say(f"soak: minute {memory[-1]['minute']:.1f} of {args.soak:g}, {memory[-1]['own_mib']:.0f} MiB")
    time.sleep(2)
    memory.append({"minute": (time.monotonic() - begun) / 60} | server.memory())
    kinds = {f"{kind} {status or 'sent'}": count for (kind, status), count in sorted(counts.items(), key=str)}
    return {"minutes": args.soak, "requests": kinds, "failures": failures[:20], "memory": memory}


def report(found):
    """The figures as a person reads them."""
    lines = [f"{found['server']} on {found['machine']}, {found['tokens']} tokens a stream, {found['rounds']} rounds"]
    for row in found.get("throughput", []):
        rate = row["tokens_per_second"]
        spread = f"{rate['least']:.1f} to {rate['most']:.1f}"
        lines.append(
            f"{row['streams']:4} streams   {rate['median']:8.1f} tokens/s   {row['times_one_stream']:5.2f} x   {spread}"
        )
    if line := found.get("command-line"):
        http, own = line["http"]["median"], line["command_line"]["median"]
        lines.append(f"one stream {http:.1f} tokens/s, command line {own:.1f}: {line['http_of_command_line']:.3f} x")
    if first := found.get("first-token"):
        lines.append(
            f"first token beside 7 streams: p50 {first['p50_ms']:.1f} ms, p99 {first['p99_ms']:.1f} ms "
            f"(alone {first['alone_ms']:.1f} ms, a step {first['step_of_7_ms']:.1f} ms: beyond alone "
            f"p50 {first['p50_steps_beyond_alone']:.1f}, p99 {first['p99_steps_beyond_alone']:.1f} steps)"
        )
    if many := found.get("crowd"):
        statuses = ", ".join(f"{count} with {status}" for status, count in many["statuses"].items())
        lines.append(f"{many['clients']} clients on a queue of {many['queue']}: {statuses}; {many['seconds']:.1f} s")
    if long := found.get("soak"):
        before, after = long["memory"][0], long["memory"][-1]
        most = max(sample["own_mib"] for sample in long["memory"])
        lines.append(
            f"soak of {long['minutes']:g} minutes, {sum(long['requests'].values())} requests, "
            f"{len(long['failures'])} failures: {before['own_mib']:.1f} MiB before, {most:.1f} at most, "
            f"{after['own_mib']:.1f} after, {after.get('prefix_cache_mib', 0):.1f} of it the prefix cache's"
        )
        lines += [f"  {kind}: {count}" for kind, count in long["requests"].items()] + long["failures"]
    return "\n".join(lines)


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLES.format(measurements=", ".join(MEASUREMENTS)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--hornbook", type=Path, default=BUILT, help="the binary")
    parser.add_argument("--model", default="fable", help="as hornbook knows it, or as the server at --url does")
    parser.add_argument("--precision", help="as hornbook serve has it")
    parser.add_argument("--threads", type=int, help="as hornbook serve has it")
    parser.add_argument("--queue", type=int, default=64, help="as hornbook serve has it")
    parser.add_argument("--url", help="a server that runs already, with its /v1")
    parser.add_argument("--pid", type=int, help="its process, for its memory")
    parser.add_argument("--only", default=",".join(MEASUREMENTS), help="measurements, with commas between")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=128, help="of each stream")
    parser.add_argument("--probes", type=int, default=100, help="short prompts beside 7 streams")
    parser.add_argument("--clients", type=int, default=64, help="that come at once")
    parser.add_argument("--soak", type=float, metavar="MINUTES", help="of random requests")
    parser.add_argument("--quick", action="store_true", help="one round of little, to see that it works")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="all figures as one JSON object")
    args = parser.parse_args()
    args.only = [name for name in args.only.split(",") if name != "none"]
    if unknown := set(args.only) - set(MEASUREMENTS):
        parser.error(f"--only: found {', '.join(sorted(unknown))}, expected some of {', '.join(MEASUREMENTS)}")
    if args.url:
        args.only = [name for name in args.only if name != "command-line"]
        if args.soak and not args.pid:
            parser.error("--soak: the server's memory is read from its process: give --pid, too")
    elif not args.hornbook.is_file():
        parser.error(f"--hornbook: found nothing at {args.hornbook}, expected the binary: cargo build --release")
    if args.quick:
        args.rounds, args.tokens, args.probes = 1, 32, 20
    config = Path(args.model) / "config.json"
    config = json.loads(config.read_text()) if config.is_file() else {}
    # Ids are sent to Hornbook alone; those of fable, where nothing else is known, but for the one that ends a text.
    args.vocab_size = 0 if args.url else config.get("vocab_size", 4096) - 1
    args.context = config.get("n_positions", 512)
    return args


def main():
    args = arguments()
    if not args.url:
        args.hornbook = os.path.abspath(args.hornbook)
    name = args.url or f"hornbook serve, {args.model}, {args.precision or 'precision as stored'}"
    found = {"server": name, "machine": f"{platform.node()}, {os.cpu_count()} cores"}
    found |= {"tokens": args.tokens, "rounds": args.rounds, "threads": args.threads}
    prompts = Prompts(args.vocab_size, args.seed)
    measures = dict(zip(MEASUREMENTS, (throughput, command_line, first_token, crowd)))
    try:
        with serving(args) as server:
            Stream(server, prompts.take(32), 8).checked(8)  # pages are read, threads are awake
            for name in args.only:
                found[name] = measures[name](server, prompts, args)
            if args.soak:
                found["soak"] = soak(server, args)
    except (Failed, OSError, HTTPException) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    print(json.dumps(found, indent=2) if args.json else report(found))
    sys.exit(bool(found.get("soak", {}).get("failures")))


if __name__ == "__main__":
    main()
