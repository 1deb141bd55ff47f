"""An engine in a process of its own, spoken to in JSON lines.

One worker lives at a time: it loads its model, is measured, and ends, so that no
other engine's threads spin and no other engine's memory is held meanwhile.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from . import engine, machine, workload

LIMIT_SECONDS = 900  # for one request; preparing or one workload on a slow machine

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class WorkerFailed(Exception):
    """What a worker said last, in one line."""


class Worker:
    """The comparison's end of the pipe; use it in a `with`."""

    def __init__(self, name, threads):
        environment = {name: str(threads) for name in THREAD_VARIABLES}
        # A peer must not meet a GPU or the network.
        environment |= {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
        self.name = name
        self.stderr = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [sys.executable, sys.argv[0], "--worker", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.stderr,
            env=os.environ | environment,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.stderr.close()

    def ask(self, **request):
        """Send one request and wait for its answer; WorkerFailed where there is none."""
        limit = threading.Timer(LIMIT_SECONDS, self.process.kill)
        limit.start()
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = b""
        finally:
            in_time = limit.is_alive()
            limit.cancel()
        if not line:
            raise WorkerFailed(self.last_words(in_time))
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerFailed(answer["error"])
        return answer

    def last_words(self, in_time):
        if not in_time:
            return f"no answer in {LIMIT_SECONDS} s"
        self.stderr.seek(0)
        lines = self.stderr.read().decode(errors="replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        return f"ended with status {self.process.wait()}" + (f": {said[-1]}" if said else "")


def serve(name):
    """The worker's end: answer requests until stdin closes."""
    # Packages print to stdout as they please; the pipe is kept from them.
    pipe = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    answers = bandwidth_answers() if name == machine.WORKER else engine_answers(engine(name))
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = answers[request.pop("do")](**request)
        except Exception as error:  # whatever a package raises, the comparison goes on without it
            first = str(error).strip().split("\n")[0]
            answer = {"error": f"{type(error).__name__}: {first}"}
        pipe.write(json.dumps(answer) + "\n")


def bandwidth_answers():
    return {"bandwidth": lambda threads: {"bytes_per_second": machine.read_bandwidth(threads)}}


def engine_answers(module):
    """What an engine's worker can be asked: prepare, then load, then measure."""
    from .checkpoint import Checkpoint

    loaded = {}

    def prepare(checkpoint, cache, precision, path):
        """Convert the checkpoint; under another name until it is whole."""
        path = Path(path)
        partial = path.with_name("partial-" + path.name)
        if partial.is_dir() and not partial.is_symlink():
            shutil.rmtree(partial)
        else:
            partial.unlink(missing_ok=True)
        module.prepare(Checkpoint(checkpoint), Path(cache), precision, partial)
        partial.rename(path)
        return {}

    def load(path, precision, threads, config, prompt, reference):
        """Load a converted model and hold its logits against the reference."""
        import numpy as np

        loaded["engine"] = module.Engine(Path(path), precision, threads, config)
        loaded["vocab_size"] = config["vocab_size"]
        logits = np.asarray(loaded["engine"].logits(prompt), np.float64)
        expected = np.load(reference)
        if logits.shape != expected.shape:
            raise ValueError(f"logits of shape {logits.shape}, expected {expected.shape}")
        return {"correlation": float(np.corrcoef(logits, expected)[0, 1])}

    def measure(work):
        return {"samples": workload.measure(loaded["engine"], workload.Workload(**work), loaded["vocab_size"])}

    return {"prepare": prepare, "load": load, "measure": measure}
