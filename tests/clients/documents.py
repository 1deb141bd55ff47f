"""Runs the Python snippets that call OpenAI's API in programs.md, and in every document of
the directory $HORNBOOK_SEEDS."""

import os
import re
import subprocess
import sys
from pathlib import Path

import check

BLOCK = re.compile(r"^```python\s*\n(.*?)^```", re.MULTILINE | re.DOTALL)
CALL = re.compile(r"\bopenai\.\w+\.a?(create|list|retrieve)\(")


def snippets(path):
    """Yields the snippets of a document that call the API, each with its line number."""
    text = path.read_text(encoding="utf-8")
    for block in BLOCK.finditer(text):
        source = block.group(1)
        if CALL.search(source) and not re.search(r"\bimport transformers|\bfrom transformers", source):
            yield text.count("\n", 0, block.start(1)) + 1, source


def make_test(source):
    """Returns a test that runs a snippet with one line of input; it must succeed or run out of input."""
    if not re.search(r"^\s*(import|from) openai\b", source, re.MULTILINE):
        source = f"import openai\n{source}"  # a fragment without its imports

    def test():
        command = [sys.executable, "-X", "utf8", "-c", source]
        done = subprocess.run(command, input="Hello\n", capture_output=True, encoding="utf-8", timeout=60)
        wants_more_input = done.stderr.endswith("EOFError: EOF when reading a line\n")
        assert done.returncode == 0 or wants_more_input, f"{done.stderr}\nfrom\n{source}"
        assert done.stdout.endswith("\n") or "print" not in source, done.stdout

    return test


def main():
    paths = [Path(__file__).parent / "programs.md"]
    if folder := os.environ.get("HORNBOOK_SEEDS"):
        more = sorted(path for path in Path(folder).iterdir() if path.suffix in (".md", ".txt"))
        assert more, f"no documents in {folder}"
        paths += more
    sources = [(path.name, line, source) for path in paths for line, source in snippets(path)]
    check.run({f"test_{name}:{line}": make_test(source) for name, line, source in sources})


if __name__ == "__main__":
    main()
