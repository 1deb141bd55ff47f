"""Runs the Python snippets of documents that ask OpenAI's API: those of programs.md, and of every file in the folder
that $HORNBOOK_SEEDS names."""

import os
import re
import subprocess
import sys
from pathlib import Path

import check

BLOCK = re.compile(r"^```python\s*\n(.*?)^```", re.MULTILINE | re.DOTALL)
CALL = re.compile(r"\bopenai\.\w+\.a?(create|list|retrieve)\(")


def snippets(path):
    """The snippets of a document that ask the API, each with the line it is on."""
    text = path.read_text(encoding="utf-8")
    for block in BLOCK.finditer(text):
        source = block.group(1)
        if CALL.search(source) and not re.search(r"\bimport transformers|\bfrom transformers", source):
            yield text.count("\n", 0, block.start(1)) + 1, source


def test_of(source):
    """A snippet must end well, with one line to read if it asks for one."""
    if not re.search(r"^\s*(import|from) openai\b", source, re.MULTILINE):
        source = f"import openai\n{source}"  # a piece of a program whose beginning is elsewhere in the document

    def test():
        command = [sys.executable, "-X", "utf8", "-c", source]
        done = subprocess.run(command, input="Hello\n", capture_output=True, encoding="utf-8", timeout=60)
        asks_on = done.stderr.endswith("EOFError: EOF when reading a line\n")
        assert done.returncode == 0 or asks_on, f"{done.stderr}\nof\n{source}"
        assert done.stdout.endswith("\n") or "print" not in source, done.stdout

    return test


def main():
    paths = [Path(__file__).parent / "programs.md"]
    if folder := os.environ.get("HORNBOOK_SEEDS"):
        more = sorted(path for path in Path(folder).iterdir() if path.suffix in (".md", ".txt"))
        assert more, f"no documents in {folder}"
        paths += more
    check.run({f"test_{path.name}:{line}": test_of(source) for path in paths for line, source in snippets(path)})


if __name__ == "__main__":
    main()
