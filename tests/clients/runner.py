"""Starts two servers, one that asks for keys, and runs the tests of both clients against them.

Called by `run`, which makes the clients' environments. Needs the standard library alone.
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
# A request every two seconds, once the first thirty are used up.
LOW_LIMIT = "30"


@contextmanager
def server(binary, log, *options):
    """A server on a free port, as its address; it has to end well when interrupted."""
    with open(log, "wb") as stderr:
        process = subprocess.Popen([binary, "serve", "--port", "0", *ALIASES, *options], stderr=stderr)
    try:
        yield address(process, log)
        process.send_signal(signal.SIGINT)
        code = process.wait(timeout=30)
        if code != 0 or "panicked" in log.read_text():
            sys.exit(f"the server ended with {code} and wrote\n{log.read_text()}")
    finally:
        process.kill()
        process.wait()


def address(process, log):
    """Where the server says that it is."""
    until = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < until:
        if found := re.search(r"http://[\d.]+:\d+/v1", log.read_text()):
            return found.group()
        time.sleep(0.05)
    sys.exit(f"the server has not started; it wrote\n{log.read_text()}")


def key(binary, file, name, *options):
    """A new key, as `hornbook keys add` prints it."""
    command = [binary, "keys", "add", name, *options, "--keys", file]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]


def tests(python, script, environment):
    """Runs the tests of a script; how many passed and failed."""
    print(f"\n{script}, openai {environment['CLIENT_VERSION']}", flush=True)
    process = subprocess.Popen([python, HERE / script], env=environment, stdout=subprocess.PIPE, text=True)
    counts = {"ok": 0, "FAILED": 0}
    for line in process.stdout:
        print(line, end="", flush=True)
        word = line.partition(" ")[0]
        if word in counts:
            counts[word] += 1
    died = process.wait() != 0 and counts["FAILED"] == 0
    return counts["ok"], counts["FAILED"] + died


def main():
    binary, folder, old, new = os.path.abspath(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]
    with tempfile.TemporaryDirectory() as temporary:
        keys = Path(temporary) / "keys.toml"
        given = {
            "KEY": key(binary, keys, "anyone"),
            "KEY_OF_ONE": key(binary, keys, "one", "--model", "text-davinci-003"),
        }
        limited = [key(binary, keys, name, "--rpm", LOW_LIMIT) for name in ("old", "new")]
        with (
            server(binary, folder / "open.log") as open_to_all,
            server(binary, folder / "keyed.log", "--keys", keys) as keyed,
        ):
            shared = os.environ | given | {
                "OPENAI_API_BASE": open_to_all,
                "OPENAI_BASE_URL": open_to_all,
                "OPENAI_API_KEY": "any",
                "KEYED_URL": keyed,
                "NO_PROXY": "127.0.0.1",
                "no_proxy": "127.0.0.1",
                "PYTHONDONTWRITEBYTECODE": "1",
            }
            passed = failed = 0
            for script, version, low in [
                ("old_client.py", old, limited[0]),
                ("documents.py", old, ""),
                ("new_client.py", new, limited[1]),
            ]:
                python = folder / f"openai-{version}" / "bin" / "python"
                counts = tests(python, script, shared | {"CLIENT_VERSION": version, "LIMITED_KEY": low})
                passed, failed = passed + counts[0], failed + counts[1]
    print(f"\n{passed} passed, {failed} failed")
    sys.exit(failed > 0 or passed == 0)


if __name__ == "__main__":
    main()
