"""`hornbook serve` while a block of code runs."""

import re
import subprocess
import sys
import threading
from collections import deque

# What the server prints on standard error when it can be asked.
_READY = re.compile(r"hornbook: serving .* at (http://\S+/v1);")


class Server:
    """A running server. ``base_url`` is what OpenAI's clients want: ``http://127.0.0.1:PORT/v1``."""

    def __init__(self, arguments):
        command = [sys.executable, "-m", "hornbook", "serve", *arguments]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        lines = []
        for line in self._process.stderr:
            lines.append(line)
            if ready := _READY.match(line):
                self.base_url = ready.group(1)
                break
        else:
            self._process.wait()
            raise ValueError("".join(lines).strip().removeprefix("hornbook: "))
        # The log is read, and dropped, for a full pipe would stop the server.
        threading.Thread(target=deque, args=(self._process.stderr, 0), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Ends the server, after the requests that are running."""
        self._process.terminate()
        self._process.wait()


def serve(model="fable", *, port=0, **options):
    """Serves OpenAI's API on this machine, at a free port, until the block ends.

    Further options are those of ``hornbook serve``, with underscores: ``precision="int8"``, ``keys="keys.toml"``.

    >>> with hornbook.serve("fable") as server:
    ...     client = openai.OpenAI(base_url=server.base_url, api_key="none")
    """
    arguments = ["--model", str(model), "--port", str(port)]
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        arguments += [flag] if value is True else [flag, str(value)]
    return Server(arguments)
