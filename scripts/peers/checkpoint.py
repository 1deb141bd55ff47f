"""The random checkpoint every engine runs, and its reference logits.

The forward pass is a plain numpy reference: each engine's logits are compared
with it, which detects a wrongly converted model.
"""

import json
import math
from pathlib import Path

SEED = 0


class Checkpoint:
    """A folder with config.json and one float32 model.safetensors."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.config = json.loads((self.folder / "config.json").read_text())

    def tensors(self):
        """Returns {name: float32 array}, memory-mapped."""
        import numpy as np

        path = self.folder / "model.safetensors"
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            listing = json.loads(file.read(length))
        listing.pop("__metadata__", None)
        data = np.memmap(path, np.uint8, "r", offset=8 + length)
        return {
            name: data[slice(*entry["data_offsets"])].view("<f4").reshape(entry["shape"])
            for name, entry in listing.items()
        }


def build(folder):
    """Creates the checkpoint unless it exists; a folder is either complete or absent."""
    import make_random_gpt2 as random_gpt2

    if not folder.is_dir():
        n_layer, n_embd, n_head = random_gpt2.SHAPES["gpt2"]
        partial = folder.with_name(folder.name + ".partial")
        partial.mkdir(parents=True, exist_ok=True)
        config = random_gpt2.config(n_layer, n_embd, n_head, "f32")
        (partial / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        random_gpt2.write_weights(partial / "model.safetensors", n_layer, n_embd, "f32", SEED)
        partial.rename(folder)
    return Checkpoint(folder)


def reference_logits(checkpoint, ids):
    """Returns the reference logits after the last of `ids`: float32 [vocab_size]."""
    import numpy as np

    config, w = checkpoint.config, checkpoint.tensors()

    def layer_norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        x /= np.sqrt((x * x).mean(-1, keepdims=True) + config["layer_norm_epsilon"])
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x, name):
        return x @ w[f"{name}.weight"] + w[f"{name}.bias"]

    def gelu(x):
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

    n, heads = len(ids), config["n_head"]
    causal_mask = np.triu(np.full((n, n), -np.inf, np.float32), 1)
    x = w["wte.weight"][ids] + w["wpe.weight"][:n]  # [n, n_embd]
    for i in range(config["n_layer"]):
        qkv = linear(layer_norm(x, f"h.{i}.ln_1"), f"h.{i}.attn.c_attn")
        q, k, v = qkv.reshape(n, 3, heads, -1).transpose(1, 2, 0, 3)  # each [heads, n, head_dim]
        scores = q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1]) + causal_mask
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        attn_out = (weights @ v).transpose(1, 0, 2).reshape(n, -1)
        x = x + linear(attn_out, f"h.{i}.attn.c_proj")
        hidden = gelu(linear(layer_norm(x, f"h.{i}.ln_2"), f"h.{i}.mlp.c_fc"))
        x = x + linear(hidden, f"h.{i}.mlp.c_proj")
    return w["wte.weight"] @ layer_norm(x[-1], "ln_f")
