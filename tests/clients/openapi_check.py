"""Validates the OpenAPI document of a running `hornbook serve` and tests the server by it:

    python openapi_check.py BINARY FOLDER [SECONDS]

`openapi-spec-validator` reads the document, and `schemathesis` sends requests generated from it, valid and
invalid, for SECONDS (default 45), with its default checks and a fixed seed. FOLDER holds the environment
`openapi`, which `run` creates. The model is `fable` cut down to one block and 192 positions, since most
requests are answered in full: with n = 128 and the maximum of max_tokens too.
"""

import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.request import urlopen

from runner import server

FABLE = Path(__file__).parents[2] / "models" / "fable"
HOOKS = Path(__file__).parent / "openapi_hooks.py"
N_POSITIONS = 192


def write_small_model(folder):
    """Writes the first block and positions of fable to a folder."""
    for file in FABLE.iterdir():
        if file.suffix != ".safetensors":
            shutil.copy(file, folder)
    config = json.loads((FABLE / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"n_layer": 1, "n_positions": N_POSITIONS}))
    file = (FABLE / "model.safetensors").read_bytes()
    (header_len,) = struct.unpack("<Q", file[:8])
    header, data = json.loads(file[8 : 8 + header_len]), file[8 + header_len :]
    tensors, end, pieces = {}, 0, []
    for name, tensor in sorted(header.items()):
        if name == "__metadata__" or (".h." in f".{name}" and ".h.0." not in f".{name}"):
            continue
        begin, stop = tensor["data_offsets"]
        rows = tensor["shape"][0]
        if name.endswith("wpe.weight"):
            stop = begin + (stop - begin) // rows * N_POSITIONS
            tensor["shape"][0] = N_POSITIONS
        pieces.append(data[begin:stop])
        tensors[name] = tensor | {"data_offsets": [end, end + stop - begin]}
        end += stop - begin
    text = json.dumps(tensors).encode()
    text += b" " * (-len(text) % 8)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"".join(pieces))


def main():
    binary, folder, seconds = os.path.abspath(sys.argv[1]), Path(sys.argv[2]).absolute(), "45"
    if len(sys.argv) > 3:
        seconds = sys.argv[3]
    tools = folder / "openapi" / "bin"
    with tempfile.TemporaryDirectory() as temporary:
        temporary = Path(temporary)
        model = temporary / "small"
        model.mkdir()
        write_small_model(model)
        with server(binary, folder / "openapi-server.log", "--model", model, "--store", temporary / "store") as url:
            base_url = url.removesuffix("/v1")
            document = temporary / "openapi.json"
            document.write_bytes(urlopen(f"{base_url}/openapi.json").read())
            subprocess.run([tools / "openapi-spec-validator", document], check=True)
            command = [tools / "schemathesis", "run", f"{base_url}/openapi.json", "--seed", "1"]
            command += ["--max-time", seconds, "--request-timeout", "60", "--no-color"]
            command += ["--exclude-checks", "positive_data_acceptance"]  # accepts_valid_data takes its place
            environment = os.environ | {"SCHEMATHESIS_HOOKS": str(HOOKS), "NO_PROXY": "127.0.0.1"}
            status = subprocess.run(command, cwd=temporary, env=environment).returncode
    sys.exit(status)


if __name__ == "__main__":
    main()
