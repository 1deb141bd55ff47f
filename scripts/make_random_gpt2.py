#!/usr/bin/env python3
"""Write a GPT-2 checkpoint of any published size with random weights.

For benchmarks of speed and memory without the real weights: shapes, names and
layout are those of Hugging Face's `openai-community/gpt2` files; the generated
text is noise. Needs only numpy. Tensors are generated and written in slices, so
even gpt2-xl needs little memory.
"""

import argparse
import json
import math
import sys
from pathlib import Path

try:
    import numpy as np
except ImportError:
    sys.exit("make_random_gpt2.py: numpy is not installed: pip install numpy")

EXAMPLES = """examples:
  python scripts/make_random_gpt2.py /tmp/gpt2
  python scripts/make_random_gpt2.py /tmp/gpt2-xl-f16 --shape gpt2-xl --dtype f16
  python scripts/make_random_gpt2.py /tmp/gpt2 --tokenizer ~/models/gpt2

then:
  hornbook generate --model /tmp/gpt2 --prompt-ids 15,3,7 --output ids
"""

# (n_layer, n_embd, n_head) of "Language Models are Unsupervised Multitask Learners"
SHAPES = {
    "gpt2": (12, 768, 12),
    "gpt2-medium": (24, 1024, 16),
    "gpt2-large": (36, 1280, 20),
    "gpt2-xl": (48, 1600, 25),
}
VOCAB_SIZE, N_POSITIONS = 50257, 1024
DTYPES = {"f32": ("F32", "float32", 4), "f16": ("F16", "float16", 2), "bf16": ("BF16", "bfloat16", 2)}
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "merges.txt")
VALUES_PER_SLICE = 1 << 22


def tensors(n_layer, n_embd):
    """Yields all tensors in the order of the forward pass: (name, shape, mean, std)."""
    std = 0.02
    # GPT-2 scales the residual projections so that the residual stream's std does not grow with depth.
    residual_std = std / math.sqrt(2 * n_layer)

    def norm(name):
        yield f"{name}.weight", (n_embd,), 1.0, 0.0
        yield f"{name}.bias", (n_embd,), 0.0, 0.0

    def conv1d(name, n_in, n_out, std):
        yield f"{name}.weight", (n_in, n_out), 0.0, std
        yield f"{name}.bias", (n_out,), 0.0, 0.0

    yield "wte.weight", (VOCAB_SIZE, n_embd), 0.0, std
    yield "wpe.weight", (N_POSITIONS, n_embd), 0.0, std
    for i in range(n_layer):
        yield from norm(f"h.{i}.ln_1")
        yield from conv1d(f"h.{i}.attn.c_attn", n_embd, 3 * n_embd, std)
        yield from conv1d(f"h.{i}.attn.c_proj", n_embd, n_embd, residual_std)
        yield from norm(f"h.{i}.ln_2")
        yield from conv1d(f"h.{i}.mlp.c_fc", n_embd, 4 * n_embd, std)
        yield from conv1d(f"h.{i}.mlp.c_proj", 4 * n_embd, n_embd, residual_std)
    yield from norm("ln_f")


def to_bytes(values, dtype):
    """Converts f32 values to the file's precision, rounded to nearest even, little-endian."""
    if dtype == "bf16":  # numpy has no bfloat16: keep the upper half of each f32
        bits = values.view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()
    return values.astype({"f32": "<f4", "f16": "<f2"}[dtype]).tobytes()


def header(listing, dtype):
    """Returns the safetensors header, padded with spaces to align the data to 64 bytes, and the data size."""
    tag, _, width = DTYPES[dtype]
    entries, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, shape, _, _ in listing:
        end = offset + math.prod(shape) * width
        entries[name] = {"dtype": tag, "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % 64)
    return len(text).to_bytes(8, "little") + text, offset


def write_weights(path, n_layer, n_embd, dtype, seed):
    """Writes the safetensors file tensor by tensor."""
    listing = list(tensors(n_layer, n_embd))
    header_bytes, total = header(listing, dtype)
    rng = np.random.default_rng(seed)
    written = 0
    with open(path, "wb") as file:
        file.write(header_bytes)
        for name, shape, mean, std in listing:
            remaining = math.prod(shape)
            while remaining:
                count = min(remaining, VALUES_PER_SLICE)
                if std:
                    values = rng.standard_normal(count, dtype=np.float32) * np.float32(std)
                else:
                    values = np.full(count, mean, np.float32)
                data = to_bytes(values, dtype)
                file.write(data)
                remaining -= count
                written += len(data)
            print(f"\r{100 * written // total:3}%  {name:<28}", end="", file=sys.stderr)
    print(f"\r{path}: {(len(header_bytes) + total) / 1e6:,.0f} MB{'':<24}", file=sys.stderr)


def config(n_layer, n_embd, n_head, dtype):
    """Returns config.json as Hugging Face writes it for GPT-2."""
    return {
        "activation_function": "gelu_new",
        "architectures": ["GPT2LMHeadModel"],
        "attn_pdrop": 0.1,
        "bos_token_id": 50256,
        "embd_pdrop": 0.1,
        "eos_token_id": 50256,
        "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-05,
        "model_type": "gpt2",
        "n_ctx": N_POSITIONS,
        "n_embd": n_embd,
        "n_head": n_head,
        "n_layer": n_layer,
        "n_positions": N_POSITIONS,
        "resid_pdrop": 0.1,
        "torch_dtype": DTYPES[dtype][1],
        "vocab_size": VOCAB_SIZE,
    }


def copy_tokenizer(source, out):
    found = [source / name for name in TOKENIZER_FILES if (source / name).is_file()]
    if not found:
        raise ValueError(f"{source}: found no tokenizer, expected {', '.join(TOKENIZER_FILES)}")
    for file in found:
        (out / file.name).write_bytes(file.read_bytes())


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write (created if missing)")
    parser.add_argument("--shape", choices=SHAPES, default="gpt2", help="published size (default: gpt2)")
    parser.add_argument(
        "--dtype", choices=DTYPES, default="f32", help="precision of the weights (default: f32)"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")
    parser.add_argument("--tokenizer", type=Path, metavar="DIR", help="copy tokenizer files from this folder")
    args = parser.parse_args()
    try:
        shape = SHAPES[args.shape]
        args.out.mkdir(parents=True, exist_ok=True)
        if args.tokenizer:
            copy_tokenizer(args.tokenizer, args.out)
        (args.out / "config.json").write_text(json.dumps(config(*shape, args.dtype), indent=2) + "\n")
        write_weights(args.out / "model.safetensors", *shape[:2], args.dtype, args.seed)
    except (OSError, ValueError) as error:
        sys.exit(f"make_random_gpt2.py: {error}")


if __name__ == "__main__":
    main()
