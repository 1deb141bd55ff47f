"""A worker process for one engine, with a JSON-lines protocol.

Only one worker runs at a time: it loads its model, is measured, and exits, so no
other engine's threads or memory interfere.
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

TIMEOUT_SECONDS = 900  # of one request: a conversion or a workload on a slow machine

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class WorkerFailed(Exception):
    """A worker's error, one line."""


class Worker:
    """The client side of the pipe; a context manager."""

    def __init__(self, name, threads):
        environment = {name: str(threads) for name in THREAD_VARIABLES}
        # Engines must use neither a GPU nor the network.
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

    def request(self, **message):
        """Sends one request and waits for its response; raises WorkerFailed without one."""
        timer = threading.Timer(TIMEOUT_SECONDS, self.process.kill)
        timer.start()
        try:
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = b""
        finally:
            timed_out = not timer.is_alive()
            timer.cancel()
        if not line:
            raise WorkerFailed(self.failure(timed_out))
        response = json.loads(line)
        if "error" in response:
            raise WorkerFailed(response["error"])
        return response

    def failure(self, timed_out):
        if timed_out:
            return f"no response within {TIMEOUT_SECONDS} s"
        self.stderr.seek(0)
        lines = self.stderr.read().decode(errors="replace").split("\n")
        messages = [line.strip() for line in lines if line.strip()]
        return f"exited with status {self.process.wait()}" + (f": {messages[-1]}" if messages else "")


def serve(name):
    """The worker side: handles requests until stdin closes."""
    # Packages may print to stdout, so it is redirected to stderr and the pipe uses a duplicate.
    pipe = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    handlers = bandwidth_handlers() if name == machine.WORKER else engine_handlers(engine(name))
    for line in sys.stdin:
        request = json.loads(line)
        try:
            response = handlers[request.pop("command")](**request)
        except Exception as error:  # a package may raise anything; the comparison continues without it
            first = str(error).strip().split("\n")[0]
            response = {"error": f"{type(error).__name__}: {first}"}
        pipe.write(json.dumps(response) + "\n")


def bandwidth_handlers():
    return {"bandwidth": lambda threads: {"bytes_per_second": machine.read_bandwidth(threads)}}


def engine_handlers(module):
    """Returns the commands of an engine's worker: prepare, load, measure."""
    from .checkpoint import Checkpoint

    loaded = {}

    def prepare(checkpoint, cache, precision, path):
        """Converts the checkpoint to a temporary name and renames it when complete."""
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
        """Loads a converted model and compares its logits with the reference."""
        import numpy as np

        loaded["engine"] = module.Engine(Path(path), precision, threads, config)
        loaded["vocab_size"] = config["vocab_size"]
        logits = np.asarray(loaded["engine"].logits(prompt), np.float64)
        expected = np.load(reference)
        if logits.shape != expected.shape:
            raise ValueError(f"logits of shape {logits.shape}, expected {expected.shape}")
        return {"correlation": float(np.corrcoef(logits, expected)[0, 1])}

    def measure(work):
        return {
            "samples": workload.measure(loaded["engine"], workload.Workload(**work), loaded["vocab_size"])
        }

    return {"prepare": prepare, "load": load, "measure": measure}
