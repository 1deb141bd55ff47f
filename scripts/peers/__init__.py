"""The engines that `compare_peers.py` benchmarks, one file each.

An engine's file imports its package only when a worker prepares or loads a
model, so the comparison runs whichever packages are installed.
"""

import importlib
import importlib.util

# In the order of the table.
ENGINES = {
    "llama.cpp": "llama",
    "ctranslate2": "ct2",
    "onnxruntime": "ort",
    "pytorch": "pytorch",
}


def engine(name):
    """Returns an engine's module: PACKAGES, PRECISIONS, prepare(), Engine."""
    return importlib.import_module(f".{ENGINES[name]}", __package__)


def missing(name):
    """Returns the pip packages that this engine requires and that are not installed."""
    packages = engine(name).PACKAGES
    return [pip for module, pip in packages.items() if importlib.util.find_spec(module) is None]
