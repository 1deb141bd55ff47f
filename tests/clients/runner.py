"""Starts two servers, one of which requires API keys, and runs the tests of both clients, and those by schemas,
against them.

Called by `run`, which creates the clients' environments. Needs only the standard library.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
ALIASES = ["--alias", "text-davinci-002=fable", "--alias", "text-davinci-003=fable"]
# Requests per minute: one every two seconds once the first thirty are used.
LOW_LIMIT = "30"


@contextmanager
def server(binary, log, *options):
    """Runs a server on a free port and yields its base URL; it must exit with status 0 when interrupted."""
    with open(log, "wb") as stderr:
        process = subprocess.Popen([binary, "serve", "--port", "0", *options], stderr=stderr)
    try:
        yield base_url(process, log)
        process.send_signal(signal.SIGINT)
        code = process.wait(timeout=30)
        if code != 0 or "panicked" in log.read_text():
            sys.exit(f"the server exited with {code}; its output:\n{log.read_text()}")
    finally:
        process.kill()
        process.wait()


def base_url(process, log):
    """Returns the base URL that the server prints."""
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if found := re.search(r"http://[\d.]+:\d+/v1", log.read_text()):
            return found.group()
        time.sleep(0.05)
    sys.exit(f"the server did not start; its output:\n{log.read_text()}")


def store(folder, name):
    """Returns the options of a server with a store."""
    return ["--store", Path(folder) / f"{name}-store"]


def create_key(binary, file, name, *options):
    """Creates an API key with `hornbook keys add` and returns it."""
    command = [binary, "keys", "add", name, *options, "--keys", file]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]


def run_tests(python, script, environment):
    """Runs the tests of a script; returns the numbers of passed and failed ones."""
    print(f"\n{script}, {environment['CLIENT_VERSION']}", flush=True)
    process = subprocess.Popen([python, HERE / script], env=environment, stdout=subprocess.PIPE, text=True)
    counts = {"ok": 0, "FAILED": 0}
    for line in process.stdout:
        print(line, end="", flush=True)
        word = line.partition(" ")[0]
        if word in counts:
            counts[word] += 1
    crashed = process.wait() != 0 and counts["FAILED"] == 0
    return counts["ok"], counts["FAILED"] + crashed


def main():
    binary, folder, old, new = os.path.abspath(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]
    with tempfile.TemporaryDirectory() as temporary:
        keys = Path(temporary) / "keys.toml"
        key_variables = {
            "KEY": create_key(binary, keys, "anyone"),
            "RESTRICTED_KEY": create_key(binary, keys, "one", "--model", "text-davinci-003"),
        }
        limited = [create_key(binary, keys, name, "--rpm", LOW_LIMIT) for name in ("old", "new")]
        with (
            server(binary, folder / "open.log", *ALIASES, *store(temporary, "open")) as open_url,
            server(
                binary, folder / "keyed.log", *ALIASES, *store(temporary, "keyed"), "--keys", keys
            ) as keyed_url,
        ):
            shared = os.environ | key_variables | {
                "OPENAI_API_BASE": open_url,
                "OPENAI_BASE_URL": open_url,
                "OPENAI_API_KEY": "any",
                "KEYED_URL": keyed_url,
                "NO_PROXY": "127.0.0.1",
                "no_proxy": "127.0.0.1",
                "PYTHONDONTWRITEBYTECODE": "1",
            }
            passed = failed = 0
            for script, client, version, limited_key in [
                ("old_client.py", f"openai-{old}", old, limited[0]),
                ("documents.py", f"openai-{old}", old, ""),
                ("new_client.py", f"openai-{new}", new, limited[1]),
                ("schema_check.py", "openapi", "JSON Schema", ""),
            ]:
                python = folder / client / "bin" / "python"
                environment = shared | {"CLIENT_VERSION": version, "LIMITED_KEY": limited_key}
                counts = run_tests(python, script, environment)
                passed, failed = passed + counts[0], failed + counts[1]
    print(f"\n{passed} passed, {failed} failed")
    sys.exit(failed > 0 or passed == 0)


if __name__ == "__main__":
    main()
