"""Writes the seeds: tiny checkpoints of each precision, layout and naming. Needs torch and safetensors.

python fuzz/seeds/make.py
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save

FOLDER = Path(__file__).parent
WIDTH, POSITIONS, VOCAB = 2, 2, 3


def checkpoint(dtype, linear, prefix):
    block = {
        "ln_1.weight": [WIDTH],
        "ln_1.bias": [WIDTH],
        "attn.c_attn.weight": [WIDTH, 3 * WIDTH],
        "attn.c_attn.bias": [3 * WIDTH],
        "attn.c_proj.weight": [WIDTH, WIDTH],
        "attn.c_proj.bias": [WIDTH],
        "ln_2.weight": [WIDTH],
        "ln_2.bias": [WIDTH],
        "mlp.c_fc.weight": [WIDTH, 4 * WIDTH],
        "mlp.c_fc.bias": [4 * WIDTH],
        "mlp.c_proj.weight": [4 * WIDTH, WIDTH],
        "mlp.c_proj.bias": [WIDTH],
    }
    shapes = {"wte.weight": [VOCAB, WIDTH], "wpe.weight": [POSITIONS, WIDTH]}
    shapes |= {f"h.0.{name}": shape for name, shape in block.items()}
    shapes |= {"ln_f.weight": [WIDTH], "ln_f.bias": [WIDTH]}
    tensors = {}
    for name, shape in shapes.items():
        if linear and ".c_" in name:
            shape = shape[::-1]
        tensors[prefix + name] = torch.ones(shape, dtype=dtype)
    if linear:
        tensors["lm_head.weight"] = torch.ones([VOCAB, WIDTH], dtype=dtype)
    return save(tensors)


config = {"model_type": "gpt2", "n_embd": WIDTH, "n_layer": 1, "n_head": 1, "n_positions": POSITIONS}
config |= {"vocab_size": VOCAB, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5}
config |= {"eos_token_id": [1, 2], "bos_token_id": None, "n_inner": None}
for name, dtype, linear, prefix in [
    ("f32", torch.float32, False, ""),
    ("f16-prefix", torch.float16, False, "transformer."),
    ("bf16-linear", torch.bfloat16, True, "transformer."),
]:
    config["tie_word_embeddings"] = not linear
    text = json.dumps(config, indent=1).encode()
    (FOLDER / "config" / name).write_bytes(text)
    (FOLDER / "loader" / name).write_bytes(text + b"\0" + checkpoint(dtype, linear, prefix))


def tokenizer_files(**files):
    named = [f"{name.replace('__', '.')}\n{text}".encode() for name, text in files.items()]
    return b"\0".join(named)


tokens = [*"abcdefghijklmnopqrstuvwxyz", "\u0120", "th", "the", "\u0120the"]
vocab = {token: id for id, token in enumerate(tokens)}
merges = ["t h", "th e", "\u0120 the"]
flags = {"single_word": False, "lstrip": True, "rstrip": False, "normalized": True, "special": True}
bot = {"id": len(vocab), "content": "<|bot|>"} | flags
level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
digits = {"type": "Split", "pattern": {"Regex": "\\p{N}{1,3}(?!x)"}, "behavior": "Isolated", "invert": False}
model = {"type": "BPE", "vocab": vocab, "merges": merges}
tokenizer = {"added_tokens": [bot], "normalizer": {"type": "NFC"}, "model": model}
tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, level]}
special = {"eos_token": "<|bot|>", "pad_token": bot}
(FOLDER / "tokenizer").mkdir(exist_ok=True)
(FOLDER / "tokenizer" / "json").write_bytes(
    tokenizer_files(tokenizer__json=json.dumps(tokenizer), special_tokens_map__json=json.dumps(special))
)
(FOLDER / "tokenizer" / "vocab-merges").write_bytes(
    tokenizer_files(
        vocab__json=json.dumps(vocab),
        merges__txt="#version: 0.2\n" + "\n".join(merges),
        added_tokens__json=json.dumps({"<|bot|>": len(vocab)}),
        tokenizer_config__json=json.dumps({"add_prefix_space": True, "added_tokens_decoder": {"30": bot}}),
    )
)
