"""The program that the package brings, the server, the notebooks, the types."""

import ast
import json
import os
import runpy
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

import hornbook
from conftest import PROGRAM

ROOT = Path(__file__).parents[2]
PYTHON = [sys.executable, "-m", "hornbook"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", "The king", "--seed", "4", "--max-tokens", "15"],
        ["tokens", "The king"],
        ["generate", "The king", "--temperature", "-1"],
        ["generate", "--no-such-option"],
        ["--version"],
    ],
)
def test_program_is_the_same(arguments):
    expected, found = (
        subprocess.run([*program, *arguments], capture_output=True) for program in ([PROGRAM], PYTHON)
    )
    assert (found.returncode, found.stdout) == (expected.returncode, expected.stdout)
    assert found.stderr == expected.stderr


ENDLESS = ["--max-tokens", "100000", "--min-tokens", "100000", "--context", "shift"]


@pytest.mark.parametrize("command", [["bench", "--repeat", "1000"], ["generate", "A", *ENDLESS]])
def test_program_hears_ctrl_c(command):
    process = subprocess.Popen([*PYTHON, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=10) in (0, 130, -signal.SIGINT)


def test_server_runs_for_a_block():
    with hornbook.serve("fable", alias="small=fable") as server:
        models = json.load(urllib.request.urlopen(server.base_url + "/models"))
        assert {"fable", "small"} <= {model["id"] for model in models["data"]}
    with pytest.raises(OSError):
        urllib.request.urlopen(server.base_url + "/models", timeout=1)
    with pytest.raises(ValueError, match="model 'no-such-model' not found"):
        hornbook.serve("no-such-model")


def test_mistake_in_finetune_is_value_error(tmp_path):
    with pytest.raises(ValueError, match="no-such-file.*cannot"):
        hornbook.finetune(tmp_path / "no-such-file.txt", tmp_path / "model")


def test_model_is_finetuned_as_by_the_function(tmp_path):
    letters = tmp_path / "letters.txt"
    letters.write_text("Dear Anna, the garden is green. Yours, Tom<|endoftext|>" * 8)
    options = {"epochs": 1, "batch": 64, "last_layers": 1}
    model = hornbook.Model.from_pretrained("fable")
    results = [
        finetune(letters, tmp_path / name, **options)
        for name, finetune in [("method", model.finetune), ("function", hornbook.finetune)]
    ]
    scores = [result.score("Dear Anna, the garden is green.").loss for result in results]
    assert scores[0] == scores[1] < model.score("Dear Anna, the garden is green.").loss
    with pytest.raises(ValueError, match="no-such-file.*cannot"):
        model.finetune(tmp_path / "no-such-file.txt", tmp_path / "model")


@pytest.mark.parametrize("notebook", sorted((ROOT / "docs/notebooks").glob("*.py")), ids=lambda it: it.stem)
def test_notebook_runs(notebook, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(notebook))


def test_types_name_what_there_is():
    stub = ast.parse((Path(hornbook.__file__).parent / "_hornbook.pyi").read_text())
    classes = [node for node in stub.body if isinstance(node, ast.ClassDef)]
    [arguments] = [node for node in classes if node.name == "Arguments"]
    documented = hornbook.Model.generate.__text_signature__
    assert all(node.target.id in documented for node in arguments.body if isinstance(node, ast.AnnAssign))
    for described in (node for node in classes if node is not arguments):
        actual = {name for name in vars(getattr(hornbook, described.name)) if not name.startswith("_")}
        names = [
            getattr(node, "name", None) or node.target.id
            for node in described.body
            if isinstance(node, (ast.FunctionDef, ast.AnnAssign))
        ]
        assert {name for name in names if not name.startswith("_")} == actual, described.name
        for name in actual:
            assert getattr(hornbook, described.name).__dict__[name].__doc__, f"{described.name}.{name}"


def test_types_are_complete(tmp_path):
    mypy = [sys.executable, "-m", "mypy", "--strict", "--ignore-missing-imports", "--cache-dir", tmp_path]
    run = subprocess.run([*mypy, "-p", "hornbook"], cwd=ROOT / "python", capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
