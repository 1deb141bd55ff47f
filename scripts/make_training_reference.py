#!/usr/bin/env python3
"""Write tests/data/tiny-*/training.safetensors: gradients and losses that the Rust tests compare with.

PyTorch computes them in float64, independently of Hornbook. Run by hand with the
versions of scripts/requirements.txt, after make_reference.py; seeds are fixed, so a
second run writes the same files.

ids.I           [n + 1]   I64, sequence I of the batch (I = 0, 1, 2)
weights.I       [n]       how much predicting ids.I[1:] counts; some are 0
loss            [11]      before and after each of ten steps of AdamW on this batch
gradient_norm   [10]      of all gradients together, before each step
muon_loss       [11]      the same with Muon for the matrices of the blocks
last_layer_loss [11]      the same with AdamW, training the last block and what follows it
lora_loss       [11]      the same, training an adapter by peft: rank 4, alpha 6, all linear layers
lora.NAME                 A and B of the adapter at first; NAME is the layer's
lora_gradient.NAME        of its first loss
gradient.NAME             of the first loss; NAME is transformers' name of the parameter

A step: gradients clipped to a norm of 1; learning rate 0.003, betas 0.9 and 0.95,
epsilon 1e-8, weight decay 0.1 for tensors of two dimensions. Muon: learning rate 0.02,
momentum 0.95, weight decay 0.1; the parts of c_attn apart.
"""

import argparse
import sys
from pathlib import Path

try:
    import numpy as np
    import torch
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import load_file, save_file
    from torch.nn.functional import cross_entropy
    from transformers import GPT2Config, GPT2LMHeadModel

    from tiny_gpt2 import TINY, sinusoidal, widened
except ImportError as error:
    sys.exit(f"make_training_reference.py: {error.name} is not installed: pip install -r scripts/requirements.txt")

DATA = Path(__file__).resolve().parent.parent / "tests" / "data"
LENGTHS = 25, 18, 2
STEPS = 10
WEIGHT_DECAY = 0.1
SEED = 7


def load(folder):
    """Returns a folder's model in float64, and the parameters that are trained, by name."""
    config = GPT2Config.from_json_file(folder / "config.json")
    config._attn_implementation = "eager"
    model = GPT2LMHeadModel(config).eval()
    tensors = load_file(folder / "model.safetensors")
    state = {name if name.startswith(("transformer.", "lm_head.")) else f"transformer.{name}": tensor
             for name, tensor in tensors.items() if not name.endswith((".attn.bias", ".masked_bias"))}  # fmt: skip
    fixed = set()
    if getattr(config, "position_embedding_type", None) == "sinusoidal":
        table = sinusoidal(config.n_positions, config.n_embd).astype(np.float32)
        state["transformer.wpe.weight"] = torch.from_numpy(table)
        fixed = {"transformer.wpe.weight"}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    model = widened(model)
    return model, {name: p for name, p in model.named_parameters() if name not in fixed}


def loss_of(model, batch):
    """Returns the weighted sum of the cross-entropy of all predictions."""
    losses = []
    for ids, weights in batch:
        logits = model(ids[None, :-1]).logits[0]
        losses.append((cross_entropy(logits, ids[1:], reduction="none") * weights).sum())
    return torch.stack(losses).sum()


def make_batch(vocab_size):
    rng = np.random.default_rng(SEED)
    batch = []
    for length in LENGTHS:
        ids = torch.from_numpy(rng.integers(0, vocab_size, length))
        weights = rng.integers(0, 3, length - 1) / 40  # a third of the predictions does not count
        weights[-1] = 0.05
        batch.append((ids, torch.from_numpy(weights.astype(np.float32)).double()))
    return batch


class Muon(torch.optim.Optimizer):
    """Jordan et al. 2024, in the precision of the weights. Conv1D's weights are [in, out]."""

    def __init__(self, params):
        super().__init__(params, {})

    @torch.no_grad()
    def step(self):
        for p in (p for group in self.param_groups for p in group["params"]):
            m = self.state[p].setdefault("momentum", torch.zeros_like(p))
            m.lerp_(p.grad, 0.05)
            update = p.grad.lerp(m, 0.95)
            p.mul_(1 - 0.02 * WEIGHT_DECAY)
            parts = 3 if p.shape[1] == 3 * p.shape[0] else 1
            for w, u in zip(p.chunk(parts, dim=1), update.chunk(parts, dim=1)):
                w.sub_(0.02 * max(1, u.shape[1] / u.shape[0]) ** 0.5 * orthogonal(u))


def orthogonal(u):
    x = u / (u.norm() + 1e-7)
    for _ in range(5):
        xxt = x @ x.T
        x = 3.4445 * x + (-4.7750 * xxt + 2.0315 * xxt @ xxt) @ x
    return x


def steps(model, batch, parameters, for_muon=frozenset()):
    """Takes ten steps. Returns the gradients of the first, and the loss and norm of each."""
    rest = [p for name, p in parameters.items() if name not in for_muon]
    groups = [
        {"params": [p for p in rest if p.dim() >= 2], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in rest if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizers = [torch.optim.AdamW(groups, lr=0.003, betas=(0.9, 0.95), eps=1e-8)]
    if for_muon:
        optimizers.append(Muon([parameters[name] for name in sorted(for_muon)]))
    gradients, losses, norms = {}, [], []
    for step in range(STEPS):
        model.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        if step == 0:
            gradients = {name: p.grad.float().clone() for name, p in parameters.items()}
        losses.append(loss.item())
        norms.append(torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0).item())
        for optimizer in optimizers:
            optimizer.step()
    losses.append(loss_of(model, batch).item())
    assert losses[-1] < losses[0] - 0.05, losses
    return gradients, *(torch.tensor(values, dtype=torch.float64) for values in (losses, norms))


def with_adapter(model):
    """Returns the model with an adapter in every linear layer, and A and B by the layer's name."""
    generator = torch.Generator().manual_seed(SEED)
    config = LoraConfig(r=4, lora_alpha=6, target_modules="all-linear", fan_in_fan_out=True, task_type="CAUSAL_LM")
    model = get_peft_model(model, config)
    parameters = {}
    for name, p in model.named_parameters():
        if "lora_" in name:
            p.data = 0.2 * torch.randn(p.shape, generator=generator).double().float().double()
            parameters[name.removeprefix("base_model.model.").replace(".default", "")] = p
    return model, parameters


def reference(folder):
    model, parameters = load(folder)
    batch = make_batch(model.config.vocab_size)
    gradients, losses, norms = steps(model, batch, parameters)
    out = {f"gradient.{name}": gradient for name, gradient in gradients.items()}
    for i, (ids, weights) in enumerate(batch):
        out |= {f"ids.{i}": ids, f"weights.{i}": weights.float()}
    out |= {"loss": losses, "gradient_norm": norms}

    model, parameters = load(folder)
    for_muon = {name for name, p in parameters.items() if ".h." in name and p.dim() == 2}
    out["muon_loss"] = steps(model, batch, parameters, for_muon)[1]

    model, parameters = load(folder)
    last = (f"transformer.h.{model.config.n_layer - 1}.", "transformer.ln_f.", "lm_head.")
    out["last_layer_loss"] = steps(model, batch, {n: p for n, p in parameters.items() if n.startswith(last)})[1]

    model, parameters = with_adapter(load(folder)[0])
    out |= {f"lora.{name}": p.detach().float().clone() for name, p in parameters.items()}
    gradients, out["lora_loss"], _ = steps(model, batch, parameters)
    return out | {f"lora_gradient.{name}": gradient for name, gradient in gradients.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    torch.set_num_threads(1)
    for name in TINY:
        out = reference(DATA / name)
        save_file(out, DATA / name / "training.safetensors")
        print(f"{name}: loss {out['loss'][0]:.4f} -> {out['loss'][-1]:.4f}, norm {out['gradient_norm'][0]:.3f}")


if __name__ == "__main__":
    main()
