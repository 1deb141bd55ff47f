"""What the tests share: a model, and the program that it has to equal."""

import json
import os
import subprocess

import pytest

import hornbook

PROGRAM = os.environ["HORNBOOK"]


@pytest.fixture(scope="session")
def model():
    return hornbook.Model.from_pretrained("fable")


@pytest.fixture(scope="session")
def program():
    """Runs the program and returns its JSON."""

    def run(*arguments):
        command = [PROGRAM, *map(str, arguments), "--json"]
        return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)

    return run
