#!/usr/bin/env python3
"""Write the reference outputs under tests/data that the Rust tests compare with.

PyTorch and transformers compute them, independently of Hornbook. Run by hand
with the versions of scripts/requirements.txt (torch 2.15.0, transformers
5.23.0); seeds are fixed, so a second run writes the same files.

Each tests/data/tiny-* folder is a checkpoint with its reference outputs:

config.json, model.safetensors
    a two- or three-layer GPT-2 with weights large enough that attention and
    logits are far from uniform, so that a wrong formula is detected.
reference.safetensors
    input_ids    [n]          I64, the prompt; everything below is F32
    hidden.0     [n, n_embd]  token embedding + position
    hidden.L     [n, n_embd]  residual stream after block L (L = 1 .. n_layer), before ln_f
    final_norm   [n, n_embd]  after ln_f (what transformers calls hidden_states[-1])
    logits       [n, vocab]
    q.l k.l v.l  [n_head, n, head_dim]  queries, keys, values of block l (l = 0 ..)
    attention.l  [n_head, n, n]         attention weights
    z.l          [n, n_embd]  concatenated head outputs, the input of attn.c_proj
    mlp.l        [n, n_embd]  MLP output, after mlp.c_proj
expected.json
    input_ids, greedy (64 new ids, without eos), greedy_min_gap (smallest gap
    between the best two logits), and in the full folders:
    beam_search: per length_penalty and early_stopping (false, true, "never") the
        four hypotheses with their new ids (including a final eos) and scores;
    logits_processed: the last position's logits after one processor, whose
        history is input_ids; null is -infinity. `chain` applies several in
        order: repetition, presence, frequency, n-gram, temperature, top-k,
        top-p, min-p, typical-p.

The copies of tiny-gelu-new (-f16, -bf16, -linear, -sharded) hold the same model
in another format. tests/data/fable holds the default model's expected.json;
tests/data/real-gpt2.json is transcribed from published outputs.
"""

import argparse
import copy
import json
import sys
from pathlib import Path

try:
    import numpy as np
    import tokenizers
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import GPT2Config, GPT2LMHeadModel
    from transformers.utils import logging

    from decoding import GREEDY_GAP, N_BEAM, all_processed, check_beams_against_f64, choose_eos
    from decoding import f32, greedy
    from tiny_gpt2 import TINY, NearTie, check_against_f64, check_not_flat, forward, make_model, make_prompt
    from tiny_gpt2 import rounded, sinusoidal
except ImportError as error:
    sys.exit(f"make_reference.py: {error.name} is not installed: pip install -r scripts/requirements.txt")

EXAMPLES = """examples:
  python scripts/make_reference.py            # everything
  python scripts/make_reference.py fable      # only tests/data/fable
  python scripts/make_reference.py --check    # reload the tiny-* folders and compare
"""

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "tests" / "data"
FABLE = ROOT / "models" / "fable"

N_GREEDY = 64

WITH_PREFIX = {"tiny-gelu-new", "tiny-relu-untied", "tiny-sinusoidal"}
WITH_BUFFERS = {"tiny-gelu-new"}
ROUNDED = {"f16": torch.float16, "bf16": torch.bfloat16}

FABLE_PROMPTS = (
    "Once upon a time",
    "When the snow had melted,",
    '"Where are you going?" said the little fox.',
)
FABLE_TOKENS, FABLE_CONTEXT = 200, 512


# --- Files -----------------------------------------------------------------------


def write_json(path, value):
    """Writes one key per line, and one list item per line where the items are objects."""

    def lines(key, item):
        if isinstance(item, list) and item and isinstance(item[0], dict):
            return f'"{key}": [\n' + ",\n".join(json.dumps(x) for x in item) + "\n]"
        if isinstance(item, dict):
            return f'"{key}": {{\n' + ",\n".join(lines(k, v) for k, v in item.items()) + "\n}"
        return f'"{key}": {json.dumps(item)}'

    path.write_text("{\n" + ",\n".join(lines(k, v) for k, v in value.items()) + "\n}\n")


def write_tensors(path, tensors):
    save_file({name: t.contiguous() for name, t in tensors.items()}, path, metadata={"format": "pt"})


def checkpoint_tensors(model, name):
    """Returns the model's tensors under the names this folder uses."""
    tensors = {k: v.clone() for k, v in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        del tensors["lm_head.weight"]
    if model.config.to_dict().get("position_embedding_type") == "sinusoidal":
        del tensors["transformer.wpe.weight"]
    if name in WITH_BUFFERS:  # saved by old versions of transformers: causal mask and fill value
        n = model.config.n_positions
        mask = torch.ones(n, n).tril().view(1, 1, n, n)
        for layer, dtype in enumerate((torch.float32, torch.bool)):
            tensors[f"transformer.h.{layer}.attn.bias"] = mask.to(dtype)
            tensors[f"transformer.h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    if name not in WITH_PREFIX:
        tensors = {k.removeprefix("transformer."): v for k, v in tensors.items()}
    return tensors


def make_tiny(name):
    """Writes one tiny checkpoint with its reference outputs; returns the model for the copies."""
    for seed in range(1000):
        model = make_model(TINY[name], seed)
        input_ids = make_prompt(model.config.vocab_size, seed)
        try:
            reference = forward(model, input_ids)
            check_not_flat(reference)
            check_against_f64(model, reference)
            tokens, gap = greedy(model, input_ids, N_GREEDY)
            if gap < GREEDY_GAP or len(set(tokens)) < 12:
                raise NearTie("greedy search has a near tie or too few distinct ids")
            for dtype in ROUNDED.values() if name == "tiny-gelu-new" else ():
                if greedy(rounded(model, dtype).float(), input_ids, N_GREEDY)[1] < GREEDY_GAP:
                    raise NearTie("greedy search with rounded weights has a near tie")
            processed = all_processed(input_ids, reference["logits"][-1])
            eos, searches = choose_eos(model, input_ids, avoid=tokens)
            check_beams_against_f64(model, input_ids, eos, searches)
            break
        except NearTie:
            continue
    else:
        raise RuntimeError(f"{name}: no seed gives a model without near ties")

    model.config.bos_token_id = model.config.eos_token_id = eos
    folder = DATA / name
    folder.mkdir(parents=True, exist_ok=True)
    model.config.architectures = ["GPT2LMHeadModel"]
    model.config.save_pretrained(folder)
    write_tensors(folder / "model.safetensors", checkpoint_tensors(model, name))
    write_tensors(folder / "reference.safetensors", reference)
    expected = {"input_ids": input_ids.tolist(), "greedy": tokens, "greedy_min_gap": f32(gap)}
    beams = {"eos_token_id": eos, "num_beams": 4, "max_new_tokens": N_BEAM, "searches": searches}
    write_json(folder / "expected.json", expected | {"beam_search": beams, "logits_processed": processed})
    print(f"{name}: seed {seed}, eos {eos}, greedy gap {gap:.4f}, {len(set(tokens))} distinct ids")
    return model, input_ids


def make_copy(suffix, model, input_ids):
    """Writes a copy of tiny-gelu-new with only input_ids, logits and greedy ids, without weights."""
    folder = DATA / f"tiny-gelu-new-{suffix}"
    folder.mkdir(parents=True, exist_ok=True)
    model.config.save_pretrained(folder)
    reference = forward(model, input_ids)
    write_tensors(folder / "reference.safetensors", {k: reference[k] for k in ("input_ids", "logits")})
    tokens, gap = greedy(model, input_ids, N_GREEDY)
    if gap < GREEDY_GAP:
        raise RuntimeError(f"{folder.name}: the best two logits of greedy search are only {gap:.1e} apart")
    expected = {"input_ids": input_ids.tolist(), "greedy": tokens, "greedy_min_gap": f32(gap)}
    write_json(folder / "expected.json", expected)
    print(f"{folder.name}: greedy gap {gap:.4f}")
    return folder


def make_rounded(model, input_ids, suffix):
    """Writes f16 or bf16 weights; the outputs are float32 arithmetic on the rounded weights."""
    low_precision = rounded(model, ROUNDED[suffix])
    folder = make_copy(suffix, copy.deepcopy(low_precision).float(), input_ids)
    low_precision.config.dtype = ROUNDED[suffix]
    low_precision.config.save_pretrained(folder)
    write_tensors(folder / "model.safetensors", checkpoint_tensors(low_precision, folder.name))


def make_linear(model, input_ids):
    """Writes nanoGPT's format: nn.Linear weights [out, in], the tied LM head, a minimal config.json."""
    folder = make_copy("linear", model, input_ids)
    tensors = {k: v.clone() for k, v in model.state_dict().items()}
    for name in tensors:
        if name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
            tensors[name] = tensors[name].T
    write_tensors(folder / "model.safetensors", tensors)
    config = model.config
    sizes = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")
    write_json(folder / "config.json", {"model_type": "gpt2"} | {key: getattr(config, key) for key in sizes})


def make_sharded(model, input_ids):
    """Writes the same tensors as two shards and an index."""
    folder = make_copy("sharded", model, input_ids)
    tensors = checkpoint_tensors(model, folder.name)
    files = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    where = {name: files[".1." in name or "ln_f" in name] for name in tensors}
    for file in files:
        write_tensors(folder / file, {name: t for name, t in tensors.items() if where[name] == file})
    total = sum(t.numel() * t.element_size() for t in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": where}
    write_json(folder / "model.safetensors.index.json", index)


def load_fable():
    model = GPT2LMHeadModel.from_pretrained(FABLE, dtype=torch.float32, attn_implementation="eager").eval()
    return model, tokenizers.Tokenizer.from_file(str(FABLE / "tokenizer.json"))


@torch.no_grad()
def make_fable():
    """Writes greedy continuations, the top logits of one position, and the logprobs of a text."""
    model, tokenizer = load_fable()
    runs = []
    for prompt in FABLE_PROMPTS:
        input_ids = torch.tensor(tokenizer.encode(prompt).ids)
        tokens, gap = greedy(model, input_ids, FABLE_TOKENS)
        if gap < GREEDY_GAP:
            raise RuntimeError(
                f"fable: {prompt!r}: greedy search has a near tie ({gap:.1e}); change the prompt"
            )
        print(f"fable: {prompt!r}: greedy gap {gap:.5f}: {tokenizer.decode(tokens)[:60]!r}")
        runs.append(
            {"prompt": prompt, "input_ids": input_ids.tolist(), "greedy": tokens, "min_gap": f32(gap)}
        )
    last = model(torch.tensor([runs[0]["input_ids"]])).logits[0, -1].topk(20)
    top = [[token.item(), f32(logit)] for token, logit in zip(last.indices, last.values)]

    # Not in fable's training data: Anna Sewell, Black Beauty (1877), chapter 18.
    text_ids = torch.tensor(tokenizer.encode((DATA / "fable" / "text.txt").read_text()).ids[:FABLE_CONTEXT])
    if len(text_ids) < FABLE_CONTEXT:
        raise RuntimeError(f"tests/data/fable/text.txt has {len(text_ids)} tokens, expected {FABLE_CONTEXT}")
    logprobs = model(text_ids[None]).logits[0, :-1].double().log_softmax(-1)
    logprobs = logprobs.gather(1, text_ids[1:, None])[:, 0]
    write_json(
        DATA / "fable" / "expected.json",
        {
            "greedy": runs,
            "last_position": {"prompt": FABLE_PROMPTS[0], "input_ids": runs[0]["input_ids"], "top": top},
            "text": {
                "input_ids": text_ids.tolist(),
                "logprobs": [f32(value) for value in logprobs],
                "mean_nll": -logprobs.mean().item(),
            },
        },
    )
    print(f"fable: mean nll {-logprobs.mean().item():.4f} over {len(logprobs)} tokens")


# --- Verification ------------------------------------------------------------------


def load_back(folder):
    """Loads a folder with transformers, converting the two formats it does not support."""
    if folder.name.endswith("-linear"):
        tensors = load_file(folder / "model.safetensors")
        for name in tensors:
            if name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
                tensors[name] = tensors[name].T
        model = GPT2LMHeadModel(GPT2Config.from_pretrained(folder, attn_implementation="eager"))
        model.load_state_dict(tensors)
        return model.eval()
    model = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    if model.config.to_dict().get("position_embedding_type") == "sinusoidal":
        table = sinusoidal(model.config.n_positions, model.config.n_embd).astype(np.float32)
        model.transformer.wpe.weight.data.copy_(torch.from_numpy(table))
    return model


@torch.no_grad()
def check():
    for folder in sorted(DATA.glob("tiny-*")):
        stored = load_file(folder / "reference.safetensors")
        expected = json.loads((folder / "expected.json").read_text())
        model = load_back(folder)
        again = forward(model, stored["input_ids"])
        worst = max((again[k].float() - v.float()).abs().max().item() for k, v in stored.items())
        tokens, _ = greedy(model, stored["input_ids"], N_GREEDY)
        if (
            worst > 1e-4
            or tokens != expected["greedy"]
            or stored["input_ids"].tolist() != expected["input_ids"]
        ):
            raise RuntimeError(
                f"{folder.name}: transformers' outputs differ from the stored ones (by {worst:.1e})"
            )
        print(f"{folder.name}: {len(stored)} tensors, largest difference {worst:.1e}, greedy equal")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "what", nargs="*", metavar="WHAT", help=f"any of {', '.join(TINY)}, fable (default: all)"
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing; load the tiny-* folders with transformers and compare",
    )
    args = parser.parse_args()
    for what in args.what:
        if what not in TINY and what != "fable":
            parser.error(f"{what}: expected one of {', '.join(TINY)}, fable")
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        if args.check:
            return check()
        for name in TINY:
            if args.what and name not in args.what:
                continue
            model, input_ids = make_tiny(name)
            if name == "tiny-gelu-new":
                make_rounded(model, input_ids, "f16")
                make_rounded(model, input_ids, "bf16")
                make_linear(model, input_ids)
                make_sharded(model, input_ids)
        if not args.what or "fable" in args.what:
            make_fable()
    except (OSError, RuntimeError) as error:
        sys.exit(f"make_reference.py: {error}")


if __name__ == "__main__":
    main()
