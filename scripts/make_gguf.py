#!/usr/bin/env python3
"""Write a GPT-2 checkpoint as GGUF with a tokenizer, for llama.cpp's servers.

Allows benchmarking such a server with scripts/measure_server.py, which sends
text prompts. A vocabulary smaller than the model's is padded with unused tokens.
Needs numpy and gguf.
"""

import argparse
import sys
from pathlib import Path

from peers.checkpoint import Checkpoint
from peers.llama import write_f32

EXAMPLES = """examples:
  python scripts/make_random_gpt2.py /tmp/random
  python scripts/make_gguf.py /tmp/random models/fable /tmp/random.gguf
  pip install "llama-cpp-python[server]"
  python -m llama_cpp.server --model /tmp/random.gguf --n_ctx 1024 --interrupt_requests false --port 9000
  python scripts/measure_server.py --url http://127.0.0.1:9000/v1 --only throughput

By default that server aborts a stream when the next request arrives; it processes one request at a time.
"""


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, help="folder with config.json and float32 model.safetensors")
    parser.add_argument("tokenizer", type=Path, help="folder with vocab.json and merges.txt")
    parser.add_argument("out", type=Path, metavar="OUT", help="file to write")
    args = parser.parse_args()
    needed = [
        (args.checkpoint, "config.json"),
        (args.tokenizer, "vocab.json"),
        (args.tokenizer, "merges.txt"),
    ]
    for folder, name in needed:
        if not (folder / name).is_file():
            sys.exit(f"{folder}: found no {name}")
    write_f32(Checkpoint(args.checkpoint), args.out, args.tokenizer)


if __name__ == "__main__":
    main()
