"""Tiny GPT-2 models with random weights, and the activations of their forward pass."""

import copy

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

N_PROMPT = 26

# Each folder's differences from GPT-2's defaults. Shapes avoid powers of two and
# multiples of 16 on purpose, to exercise the kernels' tails.
TINY = {
    "tiny-gelu-new": dict(vocab_size=97, n_positions=96, n_embd=32, n_layer=2, n_head=4),
    "tiny-gelu-inverse-layer": dict(
        vocab_size=131, n_positions=128, n_embd=48, n_layer=3, n_head=3, n_inner=80,
        activation_function="gelu", layer_norm_epsilon=1e-6, scale_attn_by_inverse_layer_idx=True,
    ),
    "tiny-gelu-tanh-unscaled": dict(
        vocab_size=101, n_positions=100, n_embd=40, n_layer=2, n_head=2, n_inner=100,
        activation_function="gelu_pytorch_tanh", layer_norm_epsilon=1e-3, scale_attn_weights=False,
    ),
    "tiny-relu-untied": dict(
        vocab_size=113, n_positions=96, n_embd=36, n_layer=3, n_head=3, n_inner=60,
        activation_function="relu", tie_word_embeddings=False, reorder_and_upcast_attn=True,
    ),
    "tiny-silu-upcast": dict(
        vocab_size=89, n_positions=112, n_embd=30, n_layer=2, n_head=5, n_inner=52,
        activation_function="silu", scale_attn_by_inverse_layer_idx=True, reorder_and_upcast_attn=True,
    ),
    "tiny-one-head": dict(vocab_size=97, n_positions=96, n_embd=72, n_layer=1, n_head=1, n_inner=72),
    "tiny-sinusoidal": dict(
        vocab_size=103, n_positions=96, n_embd=28, n_layer=2, n_head=2,
        tie_word_embeddings=False, position_embedding_type="sinusoidal",
    ),
}  # fmt: skip


class NearTie(Exception):
    """A decision so close that rounding could change it: try the next seed."""


def sinusoidal(n_positions, n_embd):
    """PE[pos, 2i] = sin(pos / 10000^(2i/d)), PE[pos, 2i+1] = cos (Vaswani et al. 2017, 3.5)."""
    angle = np.arange(n_positions)[:, None] / 10000.0 ** (np.arange(0, n_embd, 2) / n_embd)
    return np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(n_positions, n_embd)


def make_model(settings, seed):
    """Returns a GPT-2 whose attention scores and logits have a std of about 1.5 and 2.5."""
    config = GPT2Config(bos_token_id=0, eos_token_id=0, attn_implementation="eager", **settings)
    model = GPT2LMHeadModel(config).eval()
    rng = np.random.default_rng(seed)

    def fill(tensor, std, mean=0.0):
        values = mean + std * rng.standard_normal(tuple(tensor.shape))
        tensor.copy_(torch.from_numpy(values.astype(np.float32)))

    n_embd = config.n_embd
    with torch.no_grad():
        fill(model.transformer.wte.weight, 2.5 / n_embd**0.5)
        fill(model.transformer.wpe.weight, 1.0)  # large, so that greedy search does not loop
        if settings.get("position_embedding_type") == "sinusoidal":
            table = sinusoidal(config.n_positions, n_embd).astype(np.float32)
            model.transformer.wpe.weight.copy_(torch.from_numpy(table))
        if not config.tie_word_embeddings:
            fill(model.lm_head.weight, 2.5 / n_embd**0.5)
        for block in model.transformer.h:
            # std of q.k * scaling is scaling * sqrt(head_dim) * n_embd * std^2
            attn, mlp = block.attn, block.mlp
            qk_std = (1.5 / (attn.scaling * attn.head_dim**0.5 * n_embd)) ** 0.5
            fill(attn.c_attn.weight[:, : 2 * n_embd], qk_std)
            fill(attn.c_attn.weight[:, 2 * n_embd :], n_embd**-0.5)
            fill(attn.c_proj.weight, n_embd**-0.5)
            fill(mlp.c_fc.weight, 1.2 / n_embd**0.5)
            fill(mlp.c_proj.weight, mlp.c_proj.weight.shape[0] ** -0.5)
            for layer in (attn.c_attn, attn.c_proj, mlp.c_fc, mlp.c_proj):
                fill(layer.bias, 0.2)
        for norm in [n for b in model.transformer.h for n in (b.ln_1, b.ln_2)] + [model.transformer.ln_f]:
            fill(norm.weight, 0.3, mean=1.0)
            fill(norm.bias, 0.2)
    return model


def rounded(model, dtype):
    return copy.deepcopy(model).to(dtype)


def make_prompt(vocab_size, seed):
    """Returns random ids, some repeated; the last occurs twice before, so n-gram bans apply."""
    ids = np.random.default_rng([seed, 1]).integers(0, vocab_size, N_PROMPT)
    ids[[5, 11]] = ids[-1]
    ids[17] = ids[3]
    return torch.from_numpy(ids)


@torch.no_grad()
def forward(model, input_ids):
    """Returns the activations of the forward pass, as listed in make_reference.py."""
    config, sites, hooks = model.config, {}, []

    def record_qkv(layer):
        def hook(_module, _args, output):
            for name, part in zip("qkv", output[0].split(config.n_embd, dim=-1)):
                sites[f"{name}.{layer}"] = part.unflatten(-1, (config.n_head, -1)).transpose(0, 1)

        return hook

    def record_input(name):
        return lambda _module, args: sites.__setitem__(name, args[0][0])

    def record_output(name):
        return lambda _module, _args, output: sites.__setitem__(name, output[0])

    for layer, block in enumerate(model.transformer.h):
        hooks.append(block.attn.c_attn.register_forward_hook(record_qkv(layer)))
        hooks.append(block.attn.c_proj.register_forward_pre_hook(record_input(f"z.{layer}")))
        hooks.append(block.mlp.register_forward_hook(record_output(f"mlp.{layer}")))
    hooks.append(model.transformer.ln_f.register_forward_pre_hook(record_input(f"hidden.{config.n_layer}")))
    out = model(input_ids[None], output_hidden_states=True, output_attentions=True)
    for hook in hooks:
        hook.remove()

    *before_norm, final_norm = out.hidden_states
    sites.update({f"hidden.{i}": h[0] for i, h in enumerate(before_norm)})
    sites.update({f"attention.{i}": a[0] for i, a in enumerate(out.attentions)})
    sites.update(final_norm=final_norm[0], logits=out.logits[0], input_ids=input_ids)
    return {name: tensor.clone().contiguous() for name, tensor in sites.items()}


def check_not_flat(reference):
    """Rejects a model whose outputs are nearly uniform: a wrong formula might reproduce them."""
    attention = torch.cat([v[:, -1].flatten() for k, v in reference.items() if k.startswith("attention")])
    if reference["logits"].std() < 1.0 or attention.max() < 3 / N_PROMPT:
        raise NearTie("nearly uniform outputs")


def widened(model):
    """Returns the model in float64, without transformers' upcast, which supports only float32."""
    exact = copy.deepcopy(model).double()
    for block in exact.transformer.h:
        block.attn.reorder_and_upcast_attn = False
    return exact


@torch.no_grad()
def check_against_f64(model, reference):
    """Checks that float32's own error is far below the tolerance of the tests (1e-4)."""
    exact = widened(model)(reference["input_ids"][None]).logits[0]
    error = ((reference["logits"] - exact).abs().max() / exact.abs().max()).item()
    if error > 1e-5:
        raise NearTie(f"float32 is off by {error:.1e}")
