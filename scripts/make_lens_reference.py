#!/usr/bin/env python3
"""Write what the lens is compared with: tests/data/<folder>/lens.safetensors.

PyTorch and transformers compute it; nothing of Hornbook takes part. Run by hand
with the versions of scripts/requirements.txt after make_reference.py; nothing
is drawn by chance, so a second run writes the same files.

input_ids   [n]                     I64, the text; everything below is F32
hidden      [n_layer + 1, n, n_embd]  residual stream (output_hidden_states, the last before ln_f)
attention   [n_layer, n_head, n, n]   output_attentions
norms       [n_layer + 1, n]        its vectors' lengths
lens        [n_layer + 1, n, vocab] head(ln_f(residual)), as logits; fable: the best five only,
            lens_ids, lens_logprobs [n_layer + 1, n, 5]
entropy     [n]                     of the model's answers, nats
surprise    [n - 1]                 of the tokens from the second on, nats
target      [n]                     I64, the token that comes next; the likeliest after the last
logit, mean_logit [n]               the target's logit, the mean of all
direct, relative  [n, n_parts]      what each part gives the target's logit, and that less what it
            gives the mean logit; parts are token embedding, position, then for
            each block its heads, attention's output bias and the MLP, then
            ln_f's bias. In float64: each part is sent through
            ln_f and head with the scale of the whole residual held
            fixed, which the sum confirms.
"""

import sys

try:
    import torch
    from safetensors.torch import load_file, save_file
    from transformers.utils import logging

    from make_reference import DATA, load_back, load_fable
    from tiny_gpt2 import forward, widened
except ImportError as error:
    sys.exit(f"make_lens_reference.py: {error.name} is missing: pip install -r scripts/requirements.txt")

TINY = ("tiny-gelu-inverse-layer", "tiny-relu-untied")
FABLE_TEXT = "The cat sat on the mat because it"


def contributions(model, seen, target):
    """[n_parts] twice, for the last dimension's logit `target` [n] and for the mean logit, in float64."""
    t, config = model.transformer, model.config
    n = len(target)
    parts = [t.wte.weight[seen["input_ids"]], t.wpe.weight[:n]]
    for layer, block in enumerate(t.h):
        z = seen[f"z.{layer}"].double().unflatten(-1, (config.n_head, -1))
        rows = block.attn.c_proj.weight.unflatten(0, (config.n_head, -1))
        parts += [z[:, head] @ rows[head] for head in range(config.n_head)]
        parts += [block.attn.c_proj.bias.expand(n, -1), seen[f"mlp.{layer}"].double()]

    whole = sum(parts)
    scale = (whole.var(-1, unbiased=False, keepdim=True) + t.ln_f.eps).sqrt()

    def of(part):
        normed = (part - part.mean(-1, keepdim=True)) / scale * t.ln_f.weight
        logits = model.lm_head(normed)
        return logits.gather(1, target[:, None])[:, 0], logits.mean(-1)

    bias = model.lm_head(t.ln_f.bias)
    pairs = [of(part) for part in parts] + [(bias[target], bias.mean().expand(n))]
    direct, mean = (torch.stack(column, dim=1) for column in zip(*pairs))
    logits = model.lm_head(t.ln_f(whole))
    error = (direct.sum(-1) - logits.gather(1, target[:, None])[:, 0]).abs().max().item()
    if error > 1e-9:
        raise RuntimeError(f"the parts miss the logit by {error:.1e}")
    return direct, direct - mean


@torch.no_grad()
def reference(model, input_ids, best=None):
    config = model.config
    seen = forward(model, input_ids)
    hidden = torch.stack([seen[f"hidden.{layer}"] for layer in range(config.n_layer + 1)])
    lens = model.lm_head(model.transformer.ln_f(hidden))
    logits = seen["logits"]
    if not torch.allclose(lens[-1], logits, atol=1e-4):
        raise RuntimeError("the lens' last row is not the model's answer")
    logprobs = logits.double().log_softmax(-1)
    target = torch.cat([input_ids[1:], logits[-1].argmax()[None]])
    direct, relative = contributions(widened(model), seen, target)
    tensors = {
        "input_ids": input_ids,
        "hidden": hidden,
        "attention": torch.stack([seen[f"attention.{layer}"] for layer in range(config.n_layer)]),
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
    print(f"{folder}: {path.stat().st_size / 1e3:.0f} KB, {tensors['direct'].shape[1]} parts")


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
