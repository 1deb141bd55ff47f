#!/usr/bin/env python3
"""Write tests/data/*/parts.*: activations, ablations and head scores of the test models.

PyTorch and transformers compute them, independently of Hornbook. Run by hand
after make_reference.py, whose checkpoints it loads, with the versions of
scripts/requirements.txt.

tests/data/tiny-gelu-new/parts.safetensors, tests/data/tiny-gelu-inverse-layer/parts.safetensors
    input_ids          [n]            I64
    position           [n, n_embd]    the rows of wpe
    ln_1.l, ln_2.l     [n, n_embd]    after the layer norms of block l
    pre.l              [n, n_inner]   the MLP's pre-activations
    logits.CHANGE      [n, vocab]     logits after an intervention: "L1H0 zero", "mlp0 mean", "L1H1 x2",
                                      several separated by commas. A hook edits a head's slice of the
                                      input of c_proj, or an MLP's output; a mean is over the n tokens of
                                      the unmodified model.
    greedy.CHANGE      [24]           I64, new ids, each computed with the intervention
    heads.tokens       [m, t]         I64, a first token, then a random sequence twice
    heads.KIND         [n_layer * n_head]  previous, duplicate, induction, first: mean attention weight on
                                      TransformerLens' detection patterns, over non-empty rows
tests/data/fable/parts.json
    heads as above; interventions with the KL divergence (nats) and the probabilities, before and after,
    of the five most likely next tokens; the mean cosine similarity of position embeddings by distance.
"""

import json
import sys

try:
    import numpy as np
    import torch
    from safetensors.torch import save_file

    from transformers.utils import logging

    from make_reference import DATA, load_back, load_fable, write_json
except ImportError as error:
    sys.exit(
        f"make_parts_reference.py: {error.name} is not installed: pip install -r scripts/requirements.txt"
    )

N_GREEDY = 24
TINY = {
    "tiny-gelu-new": [
        "L1H0 zero",
        "L0H3 mean",
        "L1H2 x2",
        "mlp1 zero",
        "mlp0 mean",
        "L0H1 zero,L1H3 mean,mlp0 x-0.5",
    ],
    "tiny-gelu-inverse-layer": ["L2H1 zero", "L0H2 mean", "mlp1 mean", "L1H0 zero,mlp2 x1.5"],
}
FABLE = ["L0H0 zero", "L1H3 zero", "L5H1 zero", "L3H2 mean", "L2H1 x2", "mlp0 zero", "mlp3 mean"]
FABLE_PROMPT = "Once upon a time there was a king who had a"


# --- Interventions -----------------------------------------------------------------------


def parse(changes):
    """'L1H0 zero,mlp0 x2' -> [(layer, head or None, 'zero' | 'mean' | factor)]"""
    for change in changes.split(","):
        component, edit = change.split(" ")
        layer, head = (
            (int(component[3:]), None) if component.startswith("mlp") else map(int, component[1:].split("H"))
        )
        yield layer, head, float(edit[1:]) if edit.startswith("x") else edit


def site(model, layer, head):
    """Returns the module, 'input' or 'output', and the columns."""
    block, width = model.transformer.h[layer], model.config.n_embd
    if head is None:
        return block.mlp, "output", slice(0, width)
    head_dim = width // model.config.n_head
    return block.attn.c_proj, "input", slice(head * head_dim, (head + 1) * head_dim)


def hook(module, where, function):
    """Applies function to the module's input or output; returns the hook's handle."""
    if where == "output":
        return module.register_forward_hook(lambda _module, _args, output: function(output))
    return module.register_forward_pre_hook(lambda _module, args: (function(args[0]), *args[1:]))


@torch.no_grad()
def mean_activation(model, input_ids, module, where, columns):
    activations = []
    handle = hook(module, where, lambda x: activations.append(x[0, :, columns].clone()) or x)
    model(input_ids[None])
    handle.remove()
    return activations[0].double().mean(0).float()


class Intervention:
    """A context manager that applies interventions to a model."""

    def __init__(self, model, input_ids, changes):
        self.model, self.edits = model, []
        for layer, head, edit in parse(changes):
            module, where, columns = site(model, layer, head)
            value = mean_activation(model, input_ids, module, where, columns) if edit == "mean" else edit
            self.edits.append((module, where, columns, value))

    def __enter__(self):
        def edit(columns, value):
            def function(x):
                x = x.clone()
                if isinstance(value, float):
                    x[..., columns] *= value
                else:
                    x[..., columns] = 0.0 if isinstance(value, str) else value
                return x

            return function

        self.handles = [
            hook(module, where, edit(columns, value)) for module, where, columns, value in self.edits
        ]
        return self.model

    def __exit__(self, *_):
        for handle in self.handles:
            handle.remove()


@torch.no_grad()
def greedy(model, input_ids, n):
    ids, gap = input_ids.tolist(), float("inf")
    for _ in range(n):
        best = model(torch.tensor([ids])).logits[0, -1].topk(2)
        gap = min(gap, (best.values[0] - best.values[1]).item())
        ids.append(best.indices[0].item())
    if gap < 1e-3:
        raise RuntimeError(
            f"the best two logits of greedy search are only {gap:.1e} apart; choose another intervention"
        )
    return ids[len(input_ids) :]


# --- Heads -------------------------------------------------------------------------


def detection_patterns(tokens):
    """Returns TransformerLens' detection patterns (head_detector.py), and the first token's column."""
    n = len(tokens)
    same = (tokens[:, None] == tokens[None, :]).float()
    duplicate = same.fill_diagonal_(0).tril()
    induction = torch.cat([torch.zeros(n, 1), duplicate[:, :-1]], dim=1).tril()
    previous = torch.diag(torch.ones(n - 1), -1)
    first = torch.zeros(n, n)
    first[1:, 0] = 1
    return {"previous": previous, "duplicate": duplicate, "induction": induction, "first": first}


@torch.no_grad()
def head_scores(model, sequences):
    sums, rows = {}, {}
    for tokens in sequences:
        attention = torch.stack(
            [a[0] for a in model(tokens[None], output_attentions=True).attentions]
        ).double()
        for kind, pattern in detection_patterns(tokens).items():
            nonempty = pattern.sum(-1) > 0
            weight = (attention * pattern).sum(-1)[..., nonempty].sum(-1)  # [n_layer, n_head]
            sums[kind] = sums.get(kind, 0) + weight
            rows[kind] = rows.get(kind, 0) + nonempty.sum().item()
    return {kind: (total / rows[kind]).flatten().float() for kind, total in sums.items()}


def repeated_sequences(vocab_size, first, length, n, seed):
    rng = np.random.default_rng(seed)
    choices = np.setdiff1d(np.arange(vocab_size), [first])
    halves = [rng.choice(choices, length, replace=False) for _ in range(n)]
    return torch.tensor(np.array([[first, *half, *half] for half in halves]))


# --- Files -------------------------------------------------------------------------


@torch.no_grad()
def make_tiny(name):
    model = load_back(DATA / name)
    config = model.config
    input_ids = torch.tensor(json.loads((DATA / name / "expected.json").read_text())["input_ids"])
    tensors, handles = {"input_ids": input_ids}, []
    tensors["position"] = model.transformer.wpe.weight[: len(input_ids)]

    def record(key):
        return lambda _module, _args, output: tensors.__setitem__(key, output[0].clone())

    for layer, block in enumerate(model.transformer.h):
        for key, module in (("ln_1", block.ln_1), ("ln_2", block.ln_2), ("pre", block.mlp.c_fc)):
            handles.append(module.register_forward_hook(record(f"{key}.{layer}")))
    original = model(input_ids[None]).logits[0]
    for handle in handles:
        handle.remove()
    for changes in TINY[name]:
        with Intervention(model, input_ids, changes) as changed:
            logits = changed(input_ids[None]).logits[0]
            if (logits - original).abs().max() < 0.1:
                raise RuntimeError(f"{name}: {changes} has almost no effect")
            tensors[f"logits.{changes}"] = logits
            tensors[f"greedy.{changes}"] = torch.tensor(greedy(changed, input_ids, N_GREEDY))
    sequences = repeated_sequences(config.vocab_size, config.eos_token_id, 20, 2, seed=1)
    tensors["heads.tokens"] = sequences
    tensors |= {f"heads.{kind}": scores for kind, scores in head_scores(model, sequences).items()}
    tensors = {key: tensor.clone().contiguous() for key, tensor in tensors.items()}
    save_file(tensors, DATA / name / "parts.safetensors", metadata={"format": "pt"})
    print(f"{name}: {len(tensors)} tensors")


@torch.no_grad()
def make_fable():
    model, tokenizer = load_fable()
    input_ids = torch.tensor(tokenizer.encode(FABLE_PROMPT).ids)
    before = model(input_ids[None]).logits[0, -1].double().log_softmax(-1)
    changes = []
    for change in FABLE:
        with Intervention(model, input_ids, change) as changed:
            after = changed(input_ids[None]).logits[0, -1].double().log_softmax(-1)
        best = before.topk(5).indices
        changes.append(
            {
                "change": change,
                "kl_divergence": (before.exp() * (before - after)).sum().item(),
                "next": [[i.item(), before[i].exp().item(), after[i].exp().item()] for i in best],
            }
        )
        print(f"fable: {change}: KL {changes[-1]['kl_divergence']:.4f}")
    sequences = repeated_sequences(model.config.vocab_size, model.config.bos_token_id, 32, 2, seed=2)
    scores = head_scores(model, sequences)
    wpe = torch.nn.functional.normalize(model.transformer.wpe.weight.double(), dim=-1)
    similarity = wpe @ wpe.T
    positions = [[d, similarity.diagonal(d).mean().item()] for d in (1, 2, 8, 64, 256)]
    write_json(
        DATA / "fable" / "parts.json",
        {
            "prompt": FABLE_PROMPT,
            "input_ids": input_ids.tolist(),
            "changes": changes,
            "heads_tokens": sequences.tolist(),
            "heads": {kind: [round(x, 7) for x in score.tolist()] for kind, score in scores.items()},
            "positions": positions,
        },
    )


def main():
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        for name in TINY:
            make_tiny(name)
        make_fable()
    except (OSError, RuntimeError) as error:
        sys.exit(f"make_parts_reference.py: {error}")


if __name__ == "__main__":
    main()
