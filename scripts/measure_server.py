#!/usr/bin/env python3
"""Benchmark `hornbook serve` from a client's point of view.

Throughput of 1, 2, 4, 8 and 16 concurrent streams; one stream compared with
`hornbook generate`; time to first token (TTFT) of short prompts while 7 streams
run; a burst of 64 simultaneous clients on a queue of 64; peak memory while 64
clients send the largest bodies that are accepted; and, with --soak, memory
before and after minutes of mixed requests, many of them aborted. Needs
only the standard library. Other OpenAI-compatible servers are measured with
--url, with text prompts instead of token ids.
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
  python scripts/make_gguf.py --help                          how to start llama.cpp's server, then
  python scripts/measure_server.py --url http://127.0.0.1:9000/v1 --only throughput

measurements: {measurements}; none for only the soak test
"""

BUILT = Path(__file__).resolve().parents[1] / "target" / "release" / "hornbook"
MEASUREMENTS = ("throughput", "command-line", "first-token", "burst", "memory")
STREAMS = (1, 2, 4, 8, 16)
# Seconds; longer than any request here takes.
TIMEOUT = 600
WORDS = "the king and queen had a small house near old wood where many birds sang all day".split()


def log(line):
    print(line, file=sys.stderr, flush=True)


class RequestFailed(Exception):
    """An unexpected response; the message is one line."""


class Prompts:
    """Distinct random prompts, so that the prefix cache never hits."""

    def __init__(self, vocab_size, seed):
        self.vocab_size, self.random = vocab_size, random.Random(seed)

    def next(self, tokens):
        if self.vocab_size:
            return [self.random.randrange(self.vocab_size) for _ in range(tokens)]
        return " ".join(self.random.choice(WORDS) for _ in range(tokens))


class Stream:
    """One streamed completion: arrival times of its chunks and the number of tokens."""

    def __init__(self, server, prompt, tokens, abort_after=None):
        self.arrivals, self.tokens, self.finish_reason, self.status = [], None, None, None
        # Different servers' parameters for "never stop early"; each ignores the others'.
        body = {
            "model": server.model,
            "prompt": prompt,
            "max_tokens": tokens,
            "stream": True,
            "temperature": 1,
        }
        body |= {"stream_options": {"include_usage": True}, "min_tokens": tokens, "ignore_eos": True}
        if server.vocab_size:
            body["return_token_ids"] = True  # the only content of chunks if the model has no tokenizer
        self.start = time.perf_counter()
        connection = server.connect()
        try:
            connection.request("POST", server.path + "/completions", json.dumps(body), server.headers)
            response = connection.getresponse()
            self.status = response.status
            if response.status != 200:
                self.error = response.read().decode(errors="replace")[:200]
                return
            for line in response:
                if not line.startswith(b"data: {"):
                    continue
                now, chunk = time.perf_counter(), json.loads(line[6:])
                if "error" in chunk:
                    raise RequestFailed(f"a stream was interrupted: {chunk['error']}")
                if usage := chunk.get("usage"):
                    self.tokens = usage["completion_tokens"]
                if chunk["choices"]:
                    self.arrivals.append(now)
                    self.finish_reason = chunk["choices"][0]["finish_reason"]
                if abort_after is not None and len(self.arrivals) >= abort_after:
                    return
        finally:
            connection.close()
        # Without usage, the finish reason "length" means that all requested tokens were generated.
        if self.tokens is None and self.finish_reason == "length":
            self.tokens = tokens

    def check(self, tokens):
        if self.status != 200:
            raise RequestFailed(f"status {self.status}: {self.error}")
        if self.tokens != tokens:
            raise RequestFailed(
                f"a stream of {self.tokens} tokens with finish reason {self.finish_reason}, expected {tokens}"
            )
        return self

    @property
    def time_to_first_token(self):
        return self.arrivals[0] - self.start

    @property
    def end(self):
        return self.arrivals[-1]

    def inter_token_latencies(self):
        return [after - before for before, after in zip(self.arrivals, self.arrivals[1:])]


class Server:
    """The server under test."""

    def __init__(self, url, model, vocab_size, pid=None):
        parts = urlsplit(url)
        self.host, self.path, self.model = parts.netloc, parts.path.rstrip("/"), model
        self.vocab_size, self.pid = vocab_size, pid
        self.headers = {"content-type": "application/json", "authorization": "Bearer any"}

    def connect(self):
        return HTTPConnection(self.host, timeout=TIMEOUT)

    def post(self, path, body):
        """Returns (status, text)."""
        connection = self.connect()
        try:
            connection.request("POST", self.path + path, json.dumps(body), self.headers)
            response = connection.getresponse()
            return response.status, response.read().decode(errors="replace")
        finally:
            connection.close()

    def memory(self):
        """Returns the process's resident memory in MiB: anonymous, mapped files, prefix cache."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        kib = {name: int(value) for name, value in re.findall(r"^(Rss\w+):\s+(\d+) kB", text, re.MULTILINE)}
        memory = {"anonymous_mib": kib["RssAnon"] / 1024, "mapped_mib": kib["RssFile"] / 1024}
        connection = self.connect()
        try:
            connection.request("GET", "/metrics")  # Hornbook only: the prefix cache is not a leak
            page = connection.getresponse().read().decode(errors="replace")
        finally:
            connection.close()
        cache_bytes = re.findall(r"^hornbook_prefix_cache_bytes\S* (\S+)$", page, re.MULTILINE)
        return memory | ({"prefix_cache_mib": sum(map(float, cache_bytes)) / 2**20} if cache_bytes else {})


@contextmanager
def serving(args):
    """Yields the server under test; starts one unless a URL is given."""
    if args.url:
        yield Server(args.url, args.model, args.vocab_size, args.pid)
        return
    options = ["--model", args.model, "--port", "0", "--queue", str(args.queue), *engine_options(args)]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with open(log, "wb") as stderr:
            process = subprocess.Popen([args.hornbook, "serve", *options], stderr=stderr)
        try:
            deadline = time.monotonic() + TIMEOUT
            while not (match := re.search(r"at (http://\S+/v1)", log.read_text())):
                if process.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"the server did not start; its log:\n{log.read_text()}")
                time.sleep(0.05)
            yield Server(match.group(1), "any", args.vocab_size, process.pid)
            process.send_signal(signal.SIGINT)
            if process.wait(timeout=60) != 0:
                sys.exit(f"the server exited with status {process.returncode}")
        finally:
            process.kill()
            process.wait()


def engine_options(args):
    options = ["--precision", args.precision] if args.precision else []
    return options + (["--threads", str(args.threads)] if args.threads else [])


def run_concurrently(jobs):
    """Runs each job on its own thread and returns their results; raises the first failure."""
    results, failures = [None] * len(jobs), []

    def run(i, job):
        try:
            results[i] = job()
        except (RequestFailed, OSError, HTTPException, ValueError) as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=job) for job in enumerate(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise RequestFailed(f"{len(failures)} of {len(jobs)} requests failed, first failure: {failures[0]}")
    return results


def percentile(values, percent):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * percent / 100))]


def summary(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def throughput(server, prompts, args):
    """Total tokens per second of all streams, from the first request to the last token."""
    samples = {n: [] for n in STREAMS}
    for round_ in range(args.rounds):
        for n in STREAMS:
            log(f"throughput, round {round_ + 1} of {args.rounds}: {n} streams")
            batch = [prompts.next(32) for _ in range(n)]
            jobs = [lambda p=prompt: Stream(server, p, args.tokens).check(args.tokens) for prompt in batch]
            streams = run_concurrently(jobs)
            seconds = max(s.end for s in streams) - min(s.start for s in streams)
            samples[n].append(sum(s.tokens for s in streams) / seconds)
    single = statistics.median(samples[1])
    rows = [{"streams": n, "tokens_per_second": summary(samples[n])} for n in STREAMS]
    return [row | {"speedup": row["tokens_per_second"]["median"] / single} for row in rows]


def command_line(server, prompts, args):
    """One stream and `hornbook generate`, interleaved: tokens per second after the first token."""
    samples = {"http": [], "command_line": []}
    for round_ in range(args.rounds):
        log(f"command line, round {round_ + 1} of {args.rounds}")
        prompt = prompts.next(32)
        stream = Stream(server, prompt, args.tokens).check(args.tokens)
        if len(stream.arrivals) < 2:
            raise RequestFailed(
                f"a stream of {args.tokens} tokens arrived as one chunk, expected one chunk per token"
            )
        samples["http"].append((args.tokens - 1) / (stream.end - stream.arrivals[0]))
        command = [
            args.hornbook,
            "generate",
            "--prompt-ids",
            ",".join(map(str, prompt)),
            "--model",
            args.model,
        ]
        command += ["--max-tokens", str(args.tokens), "--min-tokens", str(args.tokens), "--output", "ids"]
        process = subprocess.run([*command, "--stats", *engine_options(args)], capture_output=True, text=True)
        match = re.search(r"per token .* (\d+) tokens, ([\d.]+) tokens/s", process.stderr)
        if process.returncode != 0 or not match or int(match.group(1)) != args.tokens:
            raise RequestFailed(f"{' '.join(command[:2])}: {process.stderr.strip()}")
        samples["command_line"].append(float(match.group(2)))
    ratio = statistics.median(samples["http"]) / statistics.median(samples["command_line"])
    return {name: summary(values) for name, values in samples.items()} | {"http_to_command_line_ratio": ratio}


def first_token(server, prompts, args):
    """TTFT of short prompts while 7 streams run, in milliseconds and in decode steps of those streams."""
    idle = [Stream(server, prompts.next(8), 1).check(1).time_to_first_token for _ in range(5)]
    stop, ttfts, latencies = threading.Event(), [], []

    def run():
        while not stop.is_set():
            # Longer than needed; aborted when the probes are done.
            stream = Stream(server, prompts.next(32), args.context - 64, abort_after=args.context // 4)
            latencies.extend(stream.inter_token_latencies()[8:])

    threads = [threading.Thread(target=run, daemon=True) for _ in range(7)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    pauses = random.Random(args.seed)
    for probe in range(args.probes):
        if probe % 10 == 0:
            log(f"time to first token: {probe} of {args.probes} probes")
        ttfts.append(Stream(server, prompts.next(8), 1).check(1).time_to_first_token)
        time.sleep(pauses.uniform(0.02, 0.15))
    stop.set()
    for thread in threads:
        thread.join()
    step, idle_ttft = statistics.median(latencies), statistics.median(idle)
    results = {f"p{percent}_ms": percentile(ttfts, percent) * 1e3 for percent in (50, 90, 99)}
    results |= {"idle_ms": idle_ttft * 1e3, "step_of_7_ms": step * 1e3, "probes": len(ttfts)}
    return results | {f"p{p}_extra_steps": (percentile(ttfts, p) - idle_ttft) / step for p in (50, 99)}


def burst(server, prompts, args):
    """A burst of simultaneous clients: their response statuses and the total time."""
    log(f"burst of {args.clients} clients")
    batch = [prompts.next(32) for _ in range(args.clients)]
    start = time.perf_counter()
    streams = run_concurrently([lambda p=prompt: Stream(server, p, args.tokens) for prompt in batch])
    seconds, statuses = time.perf_counter() - start, [stream.status for stream in streams]
    truncated = sum(stream.status == 200 and stream.tokens != args.tokens for stream in streams)
    if truncated or not set(statuses) <= {200, 429, 503}:
        raise RequestFailed(f"{truncated} streams were truncated; statuses: {sorted(set(statuses))}")
    counts = {str(status): statuses.count(status) for status in sorted(set(statuses))}
    return {"clients": args.clients, "queue": args.queue, "statuses": counts, "seconds": seconds}


def large_bodies():
    """Bodies of nearly 8 MiB, which take many times their size if they are parsed or tokenized whole."""
    messages = ",".join(['{"role":"user","content":"a"}'] * 270_000)
    return {
        "text": ("/completions", b'{"max_tokens":1,"prompt":"' + b"word " * 1_660_000 + b'"}'),
        "texts": ("/completions", b'{"max_tokens":1,"prompt":["a"' + b',"abc"' * 1_380_000 + b"]}"),
        "tokenize": ("/tokenize", b'{"prompt":"' + b"word " * 209_000 + b'"}'),
        "ignored objects": ("/completions", b'{"max_tokens":1,"x":[0' + b',{"a":1}' * 830_000 + b"]}"),
        "token ids": ("/completions", b'{"max_tokens":1,"prompt":[1' + b",1" * 4_150_000 + b"]}"),
        "id lists": ("/completions", b'{"max_tokens":1,"prompt":[[1]' + b",[1]" * 2_050_000 + b"]}"),
        "messages": ("/chat/completions", f'{{"max_tokens":1,"messages":[{messages}]}}'.encode()),
    }


def peak_memory(server, prompts, args):
    """Peak memory beside the idle server in MiB, by kind of body and by what its clients do."""
    status, clear = Path(f"/proc/{server.pid}/status"), Path(f"/proc/{server.pid}/clear_refs")

    def mib(field):
        return int(re.search(rf"^{field}:\s+(\d+) kB", status.read_text(), re.MULTILINE).group(1)) / 1024

    def send(path, body, hang_up):
        with closing(server.connect()) as connection:
            try:
                connection.request("POST", server.path + path, body, server.headers)
                if not hang_up:
                    connection.getresponse().read()
            except (OSError, HTTPException):
                pass  # a client that is turned away

    results, idle = {}, mib("VmRSS")
    for kind, (path, body) in large_bodies().items():
        for hang_up in (False, True):
            name = f"{kind}, {'hung up' if hang_up else 'answered'}"
            clear.write_text("5")  # resets VmHWM
            run_concurrently([lambda: send(path, body, hang_up)] * args.clients)
            server.post("/tokenize", {"prompt": "a" * 300_000})  # waits for its turn, behind those left
            results[name] = mib("VmHWM") - idle
            log(f"memory: {name}: {results[name]:.0f} MiB")
    return results


def soak(server, args):
    """Mixed requests from 12 clients for minutes; resident memory before, during and after."""
    deadline, counts, lock = time.monotonic() + args.soak * 60, {}, threading.Lock()
    failures = []

    def request(prompts, rng):
        kind = rng.choice(
            ["stream", "aborted", "completion", "n=4", "batch", "embeddings", "invalid", "partial body"]
        )
        prompt = prompts.next(rng.choice([1, 8, 60, args.context // 2]))
        if kind in ("stream", "aborted"):
            tokens = rng.randrange(1, args.context // 3)
            abort_after = rng.randrange(1, tokens + 1) if kind == "aborted" else None
            return kind, Stream(server, prompt, tokens, abort_after).status
        if kind == "partial body":
            with closing(server.connect()) as connection:
                connection.connect()
                connection.sock.sendall(
                    b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 99\r\n\r\n{"
                )
                return kind, None
        body = {"model": server.model, "prompt": prompt, "max_tokens": rng.randrange(1, 40)}
        if kind == "embeddings":
            return kind, server.post("/embeddings", {"model": server.model, "input": [prompt] * 3})[0]
        extra = {"n=4": {"n": 4}, "batch": {"prompt": [prompt, prompt], "return_token_ids": True}}
        body |= extra.get(kind, {"temperature": "hot"} if kind == "invalid" else {})
        return kind, server.post("/completions", body)[0]

    def client(number):
        prompts, rng = Prompts(server.vocab_size, args.seed + number), random.Random(args.seed + number)
        while time.monotonic() < deadline:
            try:
                kind, status = request(prompts, rng)
            except (RequestFailed, OSError, HTTPException, ValueError) as error:
                failures.append(f"{type(error).__name__}: {error}")
                continue
            with lock:
                counts[(kind, status)] = counts.get((kind, status), 0) + 1
            if status not in ({400} if kind == "invalid" else {200, 429, None}):
                failures.append(f"{kind}: status {status}")

    memory = [{"minute": 0.0} | server.memory()]
    threads = [threading.Thread(target=client, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    start = time.monotonic()
    while any(thread.is_alive() for thread in threads):
        time.sleep(min(30, max(0.2, args.soak * 6)))
        memory.append({"minute": (time.monotonic() - start) / 60} | server.memory())
        log(
            f"soak: minute {memory[-1]['minute']:.1f} of {args.soak:g}, {memory[-1]['anonymous_mib']:.0f} MiB"
        )
    time.sleep(2)
    memory.append({"minute": (time.monotonic() - start) / 60} | server.memory())
    kinds = {f"{kind} {status or 'sent'}": count for (kind, status), count in sorted(counts.items(), key=str)}
    return {"minutes": args.soak, "requests": kinds, "failures": failures[:20], "memory": memory}


def report(results):
    """Returns the results as text."""
    lines = [
        f"{results['server']} on {results['machine']}, "
        f"{results['tokens']} tokens per stream, {results['rounds']} rounds"
    ]
    for row in results.get("throughput", []):
        rate = row["tokens_per_second"]
        spread = f"{rate['min']:.1f} to {rate['max']:.1f}"
        lines.append(
            f"{row['streams']:4} streams   {rate['median']:8.1f} tokens/s   "
            f"{row['speedup']:5.2f} x   {spread}"
        )
    if line := results.get("command-line"):
        http, cli = line["http"]["median"], line["command_line"]["median"]
        lines.append(
            f"one stream {http:.1f} tokens/s, command line {cli:.1f}: "
            f"{line['http_to_command_line_ratio']:.3f} x"
        )
    if first := results.get("first-token"):
        lines.append(
            f"TTFT beside 7 streams: p50 {first['p50_ms']:.1f} ms, p99 {first['p99_ms']:.1f} ms "
            f"(idle server {first['idle_ms']:.1f} ms, decode step {first['step_of_7_ms']:.1f} ms: "
            f"p50 +{first['p50_extra_steps']:.1f}, p99 +{first['p99_extra_steps']:.1f} steps)"
        )
    if burst := results.get("burst"):
        statuses = ", ".join(f"{count} with {status}" for status, count in burst["statuses"].items())
        lines.append(
            f"burst of {burst['clients']} clients on a queue of {burst['queue']}: "
            f"{statuses}; {burst['seconds']:.1f} s"
        )
    for kind, mib in results.get("memory", {}).items():
        lines.append(f"memory beside the idle server, {kind}: {mib:.0f} MiB at most")
    if soak := results.get("soak"):
        before, after = soak["memory"][0], soak["memory"][-1]
        peak = max(sample["anonymous_mib"] for sample in soak["memory"])
        lines.append(
            f"soak of {soak['minutes']:g} minutes, {sum(soak['requests'].values())} requests, "
            f"{len(soak['failures'])} failures: {before['anonymous_mib']:.1f} MiB before, {peak:.1f} peak, "
            f"{after['anonymous_mib']:.1f} after, {after.get('prefix_cache_mib', 0):.1f} of it prefix cache"
        )
        lines += [f"  {kind}: {count}" for kind, count in soak["requests"].items()] + soak["failures"]
    return "\n".join(lines)


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLES.format(measurements=", ".join(MEASUREMENTS)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--hornbook", type=Path, default=BUILT, help="the hornbook binary (default: target/release)"
    )
    parser.add_argument(
        "--model", default="fable", help="model name or folder, or the model name of the server at --url"
    )
    parser.add_argument("--precision", help="passed to hornbook serve")
    parser.add_argument("--threads", type=int, help="passed to hornbook serve")
    parser.add_argument("--queue", type=int, default=64, help="passed to hornbook serve")
    parser.add_argument("--url", help="measure a running server at this URL, including /v1")
    parser.add_argument("--pid", type=int, help="process id of that server, to read its memory")
    parser.add_argument(
        "--only", default=",".join(MEASUREMENTS), help="measurements to run, separated by commas"
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each measurement")
    parser.add_argument("--tokens", type=int, default=128, help="tokens per stream")
    parser.add_argument("--probes", type=int, default=100, help="short prompts sent beside 7 streams")
    parser.add_argument("--clients", type=int, default=64, help="simultaneous clients of the burst and of memory")
    parser.add_argument("--soak", type=float, metavar="MINUTES", help="minutes of random requests")
    parser.add_argument("--quick", action="store_true", help="one short round, as a smoke test")
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument("--json", action="store_true", help="print the results as a JSON object")
    args = parser.parse_args()
    args.only = [name for name in args.only.split(",") if name != "none"]
    if unknown := set(args.only) - set(MEASUREMENTS):
        parser.error(
            f"--only: found {', '.join(sorted(unknown))}, expected some of {', '.join(MEASUREMENTS)}"
        )
    if args.url:
        args.only = [name for name in args.only if name not in ("command-line", "memory")]
        if args.soak and not args.pid:
            parser.error("--soak: --pid is required with --url, to read the server's memory")
    elif not args.hornbook.is_file():
        parser.error(
            f"--hornbook: found no file {args.hornbook}, expected the binary: run cargo build --release"
        )
    if args.quick:
        args.rounds, args.tokens, args.probes = 1, 32, 20
    config = Path(args.model) / "config.json"
    config = json.loads(config.read_text()) if config.is_file() else {}
    # Only Hornbook receives token ids (fable's without a config.json), never the last one, which ends a text.
    args.vocab_size = 0 if args.url else config.get("vocab_size", 4096) - 1
    args.context = config.get("n_positions", 512)
    return args


def main():
    args = arguments()
    if not args.url:
        args.hornbook = os.path.abspath(args.hornbook)
    name = args.url or f"hornbook serve, {args.model}, {args.precision or 'precision as stored'}"
    results = {"server": name, "machine": f"{platform.node()}, {os.cpu_count()} cores"}
    results |= {"tokens": args.tokens, "rounds": args.rounds, "threads": args.threads}
    prompts = Prompts(args.vocab_size, args.seed)
    measures = dict(zip(MEASUREMENTS, (throughput, command_line, first_token, burst, peak_memory)))
    try:
        with serving(args) as server:
            Stream(server, prompts.next(32), 8).check(8)  # warm up the page cache and the threads
            for name in args.only:
                results[name] = measures[name](server, prompts, args)
            if args.soak:
                results["soak"] = soak(server, args)
    except (RequestFailed, OSError, HTTPException) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    print(json.dumps(results, indent=2) if args.json else report(results))
    sys.exit(bool(results.get("soak", {}).get("failures")))


if __name__ == "__main__":
    main()
