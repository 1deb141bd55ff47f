"""Subcommands of the program as functions: a server for a block of code, and fine-tuning.

Both run the program in a process of its own, so that they are what they are on the command line.
"""

import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from types import TracebackType
from typing import IO, Optional, Union

from ._hornbook import Model

_Path = Union[str, "PathLike[str]"]

# What the server prints on standard error when it can be asked.
_READY = re.compile(r"hornbook: serving .* at (http://\S+/v1);")


def _start(subcommand: str, options: Mapping[str, object]) -> "tuple[subprocess.Popen[str], IO[str]]":
    """Starts a subcommand; returns it and its standard error.

    Options have underscores for dashes; True is a flag, a list repeats its option.
    """
    command = [sys.executable, "-m", "hornbook", subcommand]
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        for each in value if isinstance(value, (list, tuple)) else [value]:
            command += [flag] if each is True else [flag, str(each)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    return process, process.stderr


def _error(lines: Iterable[str]) -> ValueError:
    return ValueError("".join(lines).strip().removeprefix("hornbook: "))


class Server:
    """A running server. ``base_url`` is what OpenAI's clients want: ``http://127.0.0.1:PORT/v1``."""

    base_url: str

    def __init__(self, process: "subprocess.Popen[str]", stderr: IO[str]) -> None:
        self._process = process
        lines = []
        for line in stderr:
            lines.append(line)
            if ready := _READY.match(line):
                self.base_url = ready.group(1)
                break
        else:
            process.wait()
            raise _error(lines)
        # The log is read, and dropped, for a full pipe would stop the server.
        threading.Thread(target=deque, args=(stderr, 0), daemon=True).start()

    def __enter__(self) -> "Server":
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the server, after the requests that are running."""
        self._process.terminate()
        self._process.wait()


def serve(model: _Path = "fable", *, port: int = 0, **options: object) -> Server:
    """Serves OpenAI's API on this machine, at a free port, until the block ends.

    Further options are those of ``hornbook serve``, with underscores: ``precision="int8"``.

    >>> with hornbook.serve("fable") as server:
    ...     client = openai.OpenAI(base_url=server.base_url, api_key="none")
    """
    return Server(*_start("serve", {"model": model, "port": port, **options}))


def finetune(
    data: Union[_Path, Sequence[_Path]], output: _Path, *, model: _Path = "fable", **options: object
) -> Model:
    """Trains a model further on texts of your own, and returns the result, which is in the folder ``output``.

    ``data`` is a file or folder of texts, or a list of them. Further options are those of
    ``hornbook finetune``, with underscores: ``epochs=3``, ``learning_rate=3e-4``, ``lora=8`` for an
    adapter, ``force=True`` to replace what is in the folder. A run that was interrupted goes on with
    ``hornbook finetune --resume``.
    """
    process, stderr = _start("finetune", {"model": model, "data": data, "output": output, **options})
    lines: "deque[str]" = deque(maxlen=1)  # the last is the error, if there is one
    try:
        for line in stderr:
            sys.stderr.writelines(lines)
            lines.append(line)
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)  # the state is saved
        process.wait()
        raise
    if process.wait() != 0:
        raise _error(lines)
    sys.stderr.writelines(lines)
    return (
        Model.from_pretrained(model, adapter=output) if "lora" in options else Model.from_pretrained(output)
    )
