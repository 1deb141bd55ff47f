"""Replicas of `hornbook serve`, and a proxy in front of them."""

import http.client
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from load import request

# Maximum time to start and to drain, in seconds.
TIMEOUT = 60


class Replica:
    """`hornbook serve` on a port, which it keeps when it is restarted; killed after the `with` block."""

    def __init__(self, binary, port):
        self.binary, self.port = binary, port

    def start(self):
        self.log = tempfile.TemporaryFile()
        # One thread each: the replicas share the machine with the proxy and the clients.
        options = ["--port", str(self.port), "--threads", "1", "--grace", str(TIMEOUT)]
        self.process = subprocess.Popen([self.binary, "serve", *options], stderr=self.log)
        wait_for_health(self.port)

    def metric(self, sample):
        """The sum of a metric's samples of this form."""
        _, text = request(self.port, "GET", "/metrics")
        return sum(float(value) for value in re.findall(rf"^{sample}(?:{{.*}})? (\S+)$", text, re.M))

    def drain(self):
        """Sends SIGTERM; returns the status of /health meanwhile, the seconds until the end, and the log."""
        started = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        time.sleep(0.1)  # until the signal has arrived
        health, _ = request(self.port, "GET", "/health")
        code = self.process.wait(timeout=2 * TIMEOUT)
        seconds = time.monotonic() - started
        self.log.seek(0)
        log = self.log.read().decode()
        if code != 0 or "panicked" in log or "the grace period is over" in log:
            sys.exit(f"the replica exited with {code}; its output:\n{log}")
        return health, seconds, log

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def wait_for_health(port):
    """Waits until /health is 200."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        try:
            if request(port, "GET", "/health")[0] == 200:
                return
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(0.05)
    sys.exit(f"port {port} is not healthy after {TIMEOUT} seconds")


def free_ports(n):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [free.getsockname()[1] for free in sockets]
    for free in sockets:
        free.close()
    return ports


@contextmanager
def proxy(program, configuration, port, replicas):
    """Runs nginx or Envoy with its configuration, at these addresses."""
    write = nginx if configuration.suffix == ".conf" else envoy
    with tempfile.TemporaryDirectory() as folder:
        arguments = write(Path(folder), configuration.read_text(), port, replicas)
        process = subprocess.Popen([program, *arguments])
        try:
            wait_for_health(port)
            yield
        finally:
            process.terminate()
            process.wait()


def nginx(folder, text, port, replicas):
    """Writes the configuration of nginx and returns its arguments."""
    folder.chmod(0o755)  # if root runs this, the workers are another user
    text = replaced(text, "listen 8000", f"listen 127.0.0.1:{port}")
    for i, replica in enumerate(replicas, 1):
        text = replaced(text, f"10.0.0.{i}:8080", f"127.0.0.1:{replica}")
    (folder / "hornbook.conf").write_text(text)
    kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; events {{}}\n"
        f"http {{ access_log off; {temporary} include {folder}/hornbook.conf; }}\n"
    )
    return ["-e", folder / "error.log", "-c", folder / "nginx.conf"]


def envoy(folder, text, port, replicas):
    """Writes the configuration of Envoy and returns its arguments."""
    text = replaced(text, "address: 0.0.0.0, port_value: 8000", f"address: 127.0.0.1, port_value: {port}")
    for i, replica in enumerate(replicas, 1):
        old = f"address: 10.0.0.{i}, port_value: 8080"
        text = replaced(text, old, f"address: 127.0.0.1, port_value: {replica}")
    (folder / "envoy.yaml").write_text(text)
    return ["-c", folder / "envoy.yaml", "--concurrency", "2", "--disable-hot-restart", "-l", "error"]


def replaced(text, old, new):
    if text.count(old) != 1:
        sys.exit(f"the configuration has {text.count(old)} times '{old}', expected one")
    return text.replace(old, new)
