#!/usr/bin/env python3
"""Write the reference outputs of the lens: tests/data/<folder>/lens.safetensors.

PyTorch and transformers compute them, independently of Hornbook. Run by hand
with the versions of scripts/requirements.txt after make_reference.py; the script
is deterministic, so a second run writes the same files.

input_ids   [n]                     I64, the text; everything below is F32
hidden      [n_layer + 1, n, n_embd]  residual stream (output_hidden_states, the last before ln_f)
attention   [n_layer, n_head, n, n]   output_attentions
norms       [n_layer + 1, n]        L2 norms of the residual stream
lens        [n_layer + 1, n, vocab] head(ln_f(residual)), as logits; fable: the best five only,
            lens_ids, lens_logprobs [n_layer + 1, n, 5]
entropy     [n]                     of the next-token distribution, nats
surprise    [n - 1]                 surprisal of the tokens from the second on, nats
target      [n]                     I64, the next token; the most likely one after the last
logit, mean_logit [n]               the target's logit, the mean of all logits
direct, relative  [n, n_parts]      direct logit attribution: each component's contribution to the
            target's logit, and the same minus its contribution to the mean logit.
            Components: token embedding, position embedding, then for each block its
            heads, the attention output bias and the MLP, then the bias of ln_f. In
            float64, each component passes through ln_f and the LM head with the
            scale of the full residual; the sum is checked against the logit.
"""

import sys

try:
    import torch
    from safetensors.torch import load_file, save_file
    from transformers.utils import logging

    from make_reference import DATA, load_back, load_fable
    from tiny_gpt2 import forward, widened
except ImportError as error:
    sys.exit(
        f"make_lens_reference.py: {error.name} is not installed: pip install -r scripts/requirements.txt"
    )

TINY = ("tiny-gelu-inverse-layer", "tiny-relu-untied")
FABLE_TEXT = "The cat sat on the mat because it"


def contributions(model, sites, target):
    """Returns (direct, relative) contributions [n, n_parts] to the logits of `target` [n], in float64."""
    t, config = model.transformer, model.config
    n = len(target)
    components = [t.wte.weight[sites["input_ids"]], t.wpe.weight[:n]]
    for layer, block in enumerate(t.h):
        z = sites[f"z.{layer}"].double().unflatten(-1, (config.n_head, -1))
        rows = block.attn.c_proj.weight.unflatten(0, (config.n_head, -1))
        components += [z[:, head] @ rows[head] for head in range(config.n_head)]
        components += [block.attn.c_proj.bias.expand(n, -1), sites[f"mlp.{layer}"].double()]

    residual = sum(components)
    scale = (residual.var(-1, unbiased=False, keepdim=True) + t.ln_f.eps).sqrt()

    def contribution(component):
        normed = (component - component.mean(-1, keepdim=True)) / scale * t.ln_f.weight
        logits = model.lm_head(normed)
        return logits.gather(1, target[:, None])[:, 0], logits.mean(-1)

    bias = model.lm_head(t.ln_f.bias)
    pairs = [contribution(component) for component in components] + [(bias[target], bias.mean().expand(n))]
    direct, mean = (torch.stack(column, dim=1) for column in zip(*pairs))
    logits = model.lm_head(t.ln_f(residual))
    error = (direct.sum(-1) - logits.gather(1, target[:, None])[:, 0]).abs().max().item()
    if error > 1e-9:
        raise RuntimeError(f"the components' sum differs from the logit by {error:.1e}")
    return direct, direct - mean


@torch.no_grad()
def reference(model, input_ids, best=None):
    config = model.config
    sites = forward(model, input_ids)
    hidden = torch.stack([sites[f"hidden.{layer}"] for layer in range(config.n_layer + 1)])
    lens = model.lm_head(model.transformer.ln_f(hidden))
    logits = sites["logits"]
    if not torch.allclose(lens[-1], logits, atol=1e-4):
        raise RuntimeError("the logit lens of the last layer differs from the model's logits")
    logprobs = logits.double().log_softmax(-1)
    target = torch.cat([input_ids[1:], logits[-1].argmax()[None]])
    direct, relative = contributions(widened(model), sites, target)
    tensors = {
        "input_ids": input_ids,
        "hidden": hidden,
        "attention": torch.stack([sites[f"attention.{layer}"] for layer in range(config.n_layer)]),
        "norms": hidden.norm(dim=-1),
        "entropy": -(logprobs.exp() * logprobs).sum(-1),
        "surprise": -logprobs[:-1].gather(1, input_ids[1:, None])[:, 0],
        "target": target,
        "logit": logits.gather(1, target[:, None])[:, 0],
        "mean_logit": logits.double().mean(-1),
        "direct": direct,
        "relative": relative,
    }
    if best is None:
        tensors["lens"] = lens
    else:
        values, ids = lens.log_softmax(-1).topk(best)
        tensors |= {"lens_ids": ids, "lens_logprobs": values}
    return {k: v if v.dtype == torch.int64 else v.float() for k, v in tensors.items()}


def write(folder, tensors):
    path = DATA / folder / "lens.safetensors"
    save_file({name: t.contiguous() for name, t in tensors.items()}, path, metadata={"format": "pt"})
    print(f"{folder}: {path.stat().st_size / 1e3:.0f} KB, {tensors['direct'].shape[1]} components")


def main():
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        for folder in TINY:
            model = load_back(DATA / folder)
            write(folder, reference(model, load_file(DATA / folder / "reference.safetensors")["input_ids"]))
        model, tokenizer = load_fable()
        write("fable", reference(model, torch.tensor(tokenizer.encode(FABLE_TEXT).ids), best=5))
    except (OSError, RuntimeError) as error:
        sys.exit(f"make_lens_reference.py: {error}")


if __name__ == "__main__":
    main()
