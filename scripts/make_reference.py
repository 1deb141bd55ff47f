#!/usr/bin/env python3
"""Write the reference outputs under tests/data that the Rust tests compare with.

PyTorch and transformers compute them; nothing of Hornbook takes part. Run by
hand with the versions of scripts/requirements.txt (torch 2.15.0, transformers
5.23.0); seeds are fixed, so a second run writes the same files.

Each tests/data/tiny-* folder is a checkpoint with its answers beside it:

config.json, model.safetensors
    a two- or three-layer GPT-2 with weights large enough that attention and
    logits are far from uniform, so that a wrong formula shows.
reference.safetensors
    input_ids    [n]          I64, the prompt; everything below is F32
    hidden.0     [n, n_embd]  token embedding + position
    hidden.L     [n, n_embd]  residual after block L (L = 1 .. n_layer), before ln_f
    final_norm   [n, n_embd]  after ln_f (what transformers calls hidden_states[-1])
    logits       [n, vocab]
    q.l k.l v.l  [n_head, n, head_dim]  queries, keys, values of block l (l = 0 ..)
    attention.l  [n_head, n, n]         attention pattern
    z.l          [n, n_embd]  head outputs side by side, before attn.c_proj
    mlp.l        [n, n_embd]  MLP output, after mlp.c_proj
expected.json
    input_ids, greedy (64 new ids, never stopping), greedy_min_gap (smallest
    distance of the best two logits), and in the full folders:
    beam_search: per length_penalty and early_stopping (false, true, "never") the
        four hypotheses with their new ids (an ending eos included) and scores;
    logits_processed: the last position's logits after one processor, whose
        history is input_ids; null is minus infinity. `chain` applies several in
        order: repetition, presence, frequency, n-gram, temperature, top-k,
        top-p, min-p, typical-p.

The copies of tiny-gelu-new (-f16, -bf16, -linear, -sharded) hold the same model
in another form. tests/data/fable holds the default model's expected.json;
tests/data/real-gpt2.json is transcribed from published outputs, not made here.
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
    from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel, LogitsProcessorList
    from transformers.generation import logits_process as lp
    from transformers.utils import logging
except ImportError as error:
    sys.exit(f"make_reference.py: {error.name} is missing: pip install -r scripts/requirements.txt")

EXAMPLES = """examples:
  python scripts/make_reference.py            # everything
  python scripts/make_reference.py fable      # only tests/data/fable
  python scripts/make_reference.py --check    # load the tiny-* folders again and compare
"""

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "tests" / "data"
FABLE = ROOT / "models" / "fable"

N_PROMPT, N_GREEDY, N_BEAM = 26, 64, 24
LENGTH_PENALTIES = (0.8, 1.0, 1.2)
GREEDY_GAP, BEAM_GAP = 1e-3, 1e-4

# What distinguishes each folder from GPT-2's defaults. Shapes avoid powers of two
# and multiples of 16 on purpose: that is where a kernel's tails live.
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
WITH_PREFIX = {"tiny-gelu-new", "tiny-relu-untied", "tiny-sinusoidal"}
WITH_BUFFERS = {"tiny-gelu-new"}
ROUNDED = {"f16": torch.float16, "bf16": torch.bfloat16}

FABLE_PROMPTS = ("Once upon a time", "When the snow had melted,", '"Where are you going?" said the little fox.')
FABLE_TOKENS, FABLE_CONTEXT = 200, 512


class NearTie(Exception):
    """A choice so close that rounding could turn it: try the next seed."""


# --- Models -----------------------------------------------------------------


def sinusoidal(n_positions, n_embd):
    """PE[pos, 2i] = sin(pos / 10000^(2i/d)), PE[pos, 2i+1] = cos (Vaswani et al. 2017, 3.5)."""
    angle = np.arange(n_positions)[:, None] / 10000.0 ** (np.arange(0, n_embd, 2) / n_embd)
    return np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(n_positions, n_embd)


def make_model(settings, seed):
    """A GPT-2 whose attention scores and logits have a spread of about 1.5 and 2.5."""
    config = GPT2Config(bos_token_id=0, eos_token_id=0, attn_implementation="eager", **settings)
    model = GPT2LMHeadModel(config).eval()
    rng = np.random.default_rng(seed)

    def fill(tensor, std, mean=0.0):
        values = mean + std * rng.standard_normal(tuple(tensor.shape))
        tensor.copy_(torch.from_numpy(values.astype(np.float32)))

    n_embd = config.n_embd
    with torch.no_grad():
        fill(model.transformer.wte.weight, 2.5 / n_embd**0.5)
        fill(model.transformer.wpe.weight, 1.0)  # large, so that greedy does not settle into a loop
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
    """Random ids, some repeated; the last has occurred twice before, so n-gram bans apply."""
    ids = np.random.default_rng([seed, 1]).integers(0, vocab_size, N_PROMPT)
    ids[[5, 11]] = ids[-1]
    ids[17] = ids[3]
    return torch.from_numpy(ids)


# --- What the forward pass computes -------------------------------------------


@torch.no_grad()
def forward(model, input_ids):
    """Every named site of the forward pass, as listed at the top of this file."""
    config, seen, hooks = model.config, {}, []

    def keep_qkv(layer):
        def hook(_module, _args, output):
            for name, part in zip("qkv", output[0].split(config.n_embd, dim=-1)):
                seen[f"{name}.{layer}"] = part.unflatten(-1, (config.n_head, -1)).transpose(0, 1)

        return hook

    def keep_input(name):
        return lambda _module, args: seen.__setitem__(name, args[0][0])

    def keep_output(name):
        return lambda _module, _args, output: seen.__setitem__(name, output[0])

    for layer, block in enumerate(model.transformer.h):
        hooks.append(block.attn.c_attn.register_forward_hook(keep_qkv(layer)))
        hooks.append(block.attn.c_proj.register_forward_pre_hook(keep_input(f"z.{layer}")))
        hooks.append(block.mlp.register_forward_hook(keep_output(f"mlp.{layer}")))
    hooks.append(model.transformer.ln_f.register_forward_pre_hook(keep_input(f"hidden.{config.n_layer}")))
    out = model(input_ids[None], output_hidden_states=True, output_attentions=True)
    for hook in hooks:
        hook.remove()

    *before_norm, final_norm = out.hidden_states
    seen.update({f"hidden.{i}": h[0] for i, h in enumerate(before_norm)})
    seen.update({f"attention.{i}": a[0] for i, a in enumerate(out.attentions)})
    seen.update(final_norm=final_norm[0], logits=out.logits[0], input_ids=input_ids)
    return {name: tensor.clone().contiguous() for name, tensor in seen.items()}


def check_not_flat(reference):
    """Refuse a model whose answers a wrong formula might reproduce by chance."""
    attention = torch.cat([v[:, -1].flatten() for k, v in reference.items() if k.startswith("attention")])
    if reference["logits"].std() < 1.0 or attention.max() < 3 / N_PROMPT:
        raise NearTie("flat outputs")


def widened(model):
    """The model in float64, to see what rounding does. transformers' upcast form knows float32 only."""
    exact = copy.deepcopy(model).double()
    for block in exact.transformer.h:
        block.attn.reorder_and_upcast_attn = False
    return exact


@torch.no_grad()
def check_against_f64(model, reference):
    """float32's own error must be far below the tolerance of the tests (1e-4)."""
    exact = widened(model)(reference["input_ids"][None]).logits[0]
    error = ((reference["logits"] - exact).abs().max() / exact.abs().max()).item()
    if error > 1e-5:
        raise NearTie(f"float32 is off by {error:.1e}")


# --- Greedy and beam search ----------------------------------------------------


@torch.no_grad()
def greedy(model, input_ids, n_tokens):
    """New ids and the smallest distance between the best two logits of any step."""
    settings = GenerationConfig(
        do_sample=False, max_new_tokens=n_tokens, pad_token_id=0, return_dict_in_generate=True, output_logits=True
    )
    model.generation_config = GenerationConfig()  # no eos: never stop
    out = model.generate(input_ids[None], generation_config=settings, attention_mask=torch.ones_like(input_ids[None]))
    best = torch.stack(out.logits)[:, 0].topk(2, dim=-1).values
    gap = (best[:, 0] - best[:, 1]).min().item()
    return out.sequences[0, len(input_ids) :].tolist(), gap


@torch.no_grad()
def beam_search(model, input_ids, eos, length_penalty, early_stopping):
    """Four hypotheses, best first: [(new ids, score)]. NearTie if a candidate's rank is doubtful."""
    settings = GenerationConfig(
        do_sample=False, num_beams=4, num_return_sequences=4, max_new_tokens=N_BEAM,
        length_penalty=length_penalty, early_stopping=early_stopping, eos_token_id=eos, pad_token_id=eos,
        return_dict_in_generate=True, output_scores=True,
    )  # fmt: skip
    model.generation_config = GenerationConfig()
    gaps, rank = [], model._get_top_k_continuations

    def rank_and_measure(accumulated_log_probs, beams_to_keep, **rest):
        best = accumulated_log_probs.topk(beams_to_keep + 1).values[0]
        gaps.append((best[:-1] - best[1:]).min().item())
        return rank(accumulated_log_probs=accumulated_log_probs, beams_to_keep=beams_to_keep, **rest)

    model._get_top_k_continuations = rank_and_measure
    try:
        out = model.generate(
            input_ids[None], generation_config=settings, attention_mask=torch.ones_like(input_ids[None])
        )
    finally:
        del model._get_top_k_continuations
    scores = out.sequences_scores.float()
    gaps.append((scores[:-1] - scores[1:]).min().item())
    if min(gaps) < BEAM_GAP:
        raise NearTie(f"beam candidates {min(gaps):.1e} apart")
    new_ids = [row[len(input_ids) :].tolist() for row in out.sequences]
    cut = [ids[: ids.index(eos) + 1] if eos in ids else ids for ids in new_ids]
    return list(zip(cut, scores))


def all_beam_searches(model, input_ids, eos):
    searches = []
    for early_stopping in (False, True, "never"):
        for length_penalty in LENGTH_PENALTIES:
            found = beam_search(model, input_ids, eos, length_penalty, early_stopping)
            searches.append(
                {
                    "length_penalty": length_penalty,
                    "early_stopping": early_stopping,
                    "sequences": [ids for ids, _ in found],
                    "scores": [f32(score) for _, score in found],
                }
            )
    return searches


def choose_eos(model, input_ids, avoid):
    """The id that, taken as eos, ends some hypotheses and makes the searches differ most."""
    best = None
    open_ended = beam_search(model, input_ids, model.config.vocab_size - 1, 1.0, False)
    for eos in sorted({id for ids, _ in open_ended for id in ids} - set(avoid)):
        try:
            searches = all_beam_searches(model, input_ids, eos)
        except NearTie:
            continue
        outcomes = len({str(search["sequences"]) for search in searches})
        endings = {ids[-1] == eos for search in searches for ids in search["sequences"]}
        if True in endings and outcomes >= 3 and (best is None or outcomes > best[0]):
            best = (outcomes, eos, searches)
    if best is None:
        raise NearTie("no id serves as eos")
    return best[1:]


def check_beams_against_f64(model, input_ids, eos, searches):
    exact = all_beam_searches(widened(model), input_ids, eos)
    if [s["sequences"] for s in exact] != [s["sequences"] for s in searches]:
        raise NearTie("beam search differs in float64")


# --- Logit processors ------------------------------------------------------------


def openai_penalty(history, logits, presence=0.0, frequency=0.0):
    """logit[j] -= count[j] * frequency + (count[j] > 0) * presence (OpenAI API reference)."""
    counts = np.bincount(history.numpy(), minlength=logits.shape[-1]).astype(np.float32)
    penalty = counts * np.float32(frequency) + (counts > 0) * np.float32(presence)
    return logits - torch.from_numpy(penalty.astype(np.float32))


PROCESSORS = {  # in the order in which a chain applies them
    "repetition_penalty": lp.RepetitionPenaltyLogitsProcessor,
    "presence_penalty": lambda value: lambda ids, x: openai_penalty(ids[0], x, presence=value),
    "frequency_penalty": lambda value: lambda ids, x: openai_penalty(ids[0], x, frequency=value),
    "no_repeat_ngram_size": lp.NoRepeatNGramLogitsProcessor,
    "temperature": lp.TemperatureLogitsWarper,
    "top_k": lp.TopKLogitsWarper,
    "top_p": lp.TopPLogitsWarper,
    "min_p": lp.MinPLogitsWarper,
    "typical_p": lp.TypicalLogitsWarper,
}
ALONE = dict(
    repetition_penalty=1.3, presence_penalty=0.6, frequency_penalty=0.35, no_repeat_ngram_size=2,
    temperature=0.7, top_k=5, top_p=0.8, min_p=0.1, typical_p=0.6,
)  # fmt: skip
CHAIN = dict(
    repetition_penalty=1.3, presence_penalty=0.6, frequency_penalty=0.35, no_repeat_ngram_size=2,
    temperature=0.7, top_k=20, top_p=0.9, min_p=0.02, typical_p=0.8,
)  # fmt: skip


def process(settings, history, logits):
    """Apply the named processors in order; refuse a cut that a little noise would move."""
    chain = LogitsProcessorList(PROCESSORS[name](value) for name, value in settings.items())
    result = chain(history[None], logits[None].clone())[0]
    for seed in range(4):
        noise = np.random.default_rng(seed).standard_normal(len(logits)).astype(np.float32)
        noisy = chain(history[None], (logits + 1e-4 * torch.from_numpy(noise))[None])[0]
        if not torch.equal(noisy.isinf(), result.isinf()):
            raise NearTie(f"{list(settings)} cuts at a near tie")
    return [None if value.isinf() else f32(value) for value in result]


def all_processed(history, logits):
    alone = {name: {"value": v, "logits": process({name: v}, history, logits)} for name, v in ALONE.items()}
    for name in ("top_k", "top_p", "min_p", "typical_p"):
        if alone[name]["logits"].count(None) > len(logits) - 2:
            raise NearTie(f"{name} leaves one token")
    return alone | {"chain": {"settings": CHAIN, "logits": process(CHAIN, history, logits)}}


# --- Files -----------------------------------------------------------------------


def f32(value):
    """The shortest decimal that reads back as the same f32."""
    return float(str(np.float32(value)))


def write_json(path, value):
    """One key a line, one list item a line where the items are objects."""

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
    """The model's tensors under the names this folder uses."""
    tensors = {k: v.clone() for k, v in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        del tensors["lm_head.weight"]
    if model.config.to_dict().get("position_embedding_type") == "sinusoidal":
        del tensors["transformer.wpe.weight"]
    if name in WITH_BUFFERS:  # as old versions of transformers saved them: causal mask and its fill value
        n = model.config.n_positions
        mask = torch.ones(n, n).tril().view(1, 1, n, n)
        for layer, dtype in enumerate((torch.float32, torch.bool)):
            tensors[f"transformer.h.{layer}.attn.bias"] = mask.to(dtype)
            tensors[f"transformer.h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    if name not in WITH_PREFIX:
        tensors = {k.removeprefix("transformer."): v for k, v in tensors.items()}
    return tensors


def make_tiny(name):
    """One tiny checkpoint with all its answers; returns the model for the copies."""
    for seed in range(1000):
        model = make_model(TINY[name], seed)
        input_ids = make_prompt(model.config.vocab_size, seed)
        try:
            reference = forward(model, input_ids)
            check_not_flat(reference)
            check_against_f64(model, reference)
            tokens, gap = greedy(model, input_ids, N_GREEDY)
            if gap < GREEDY_GAP or len(set(tokens)) < 12:
                raise NearTie("greedy is doubtful or dull")
            for dtype in ROUNDED.values() if name == "tiny-gelu-new" else ():
                if greedy(rounded(model, dtype).float(), input_ids, N_GREEDY)[1] < GREEDY_GAP:
                    raise NearTie("greedy of the rounded weights is doubtful")
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
    """A folder beside tiny-gelu-new with input_ids, logits and greedy ids only; write the weights after."""
    folder = DATA / f"tiny-gelu-new-{suffix}"
    folder.mkdir(parents=True, exist_ok=True)
    model.config.save_pretrained(folder)
    reference = forward(model, input_ids)
    write_tensors(folder / "reference.safetensors", {k: reference[k] for k in ("input_ids", "logits")})
    tokens, gap = greedy(model, input_ids, N_GREEDY)
    if gap < GREEDY_GAP:
        raise RuntimeError(f"{folder.name}: greedy's best two logits are {gap:.1e} apart")
    expected = {"input_ids": input_ids.tolist(), "greedy": tokens, "greedy_min_gap": f32(gap)}
    write_json(folder / "expected.json", expected)
    print(f"{folder.name}: greedy gap {gap:.4f}")
    return folder


def make_rounded(model, input_ids, suffix):
    """f16 or bf16 weights; the answers are float32 arithmetic on the rounded weights."""
    narrow = rounded(model, ROUNDED[suffix])
    folder = make_copy(suffix, copy.deepcopy(narrow).float(), input_ids)
    narrow.config.dtype = ROUNDED[suffix]
    narrow.config.save_pretrained(folder)
    write_tensors(folder / "model.safetensors", checkpoint_tensors(narrow, folder.name))


def make_linear(model, input_ids):
    """nanoGPT's form: nn.Linear weights [out, in], the tied head present, a minimal config.json."""
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
    """The same tensors in two files and their index."""
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
    """Greedy continuations, one position's best logits, and the log-probability of each token of a text."""
    model, tokenizer = load_fable()
    runs = []
    for prompt in FABLE_PROMPTS:
        input_ids = torch.tensor(tokenizer.encode(prompt).ids)
        tokens, gap = greedy(model, input_ids, FABLE_TOKENS)
        if gap < GREEDY_GAP:
            raise RuntimeError(f"fable: {prompt!r}: greedy's best two logits are {gap:.1e} apart; change the prompt")
        print(f"fable: {prompt!r}: greedy gap {gap:.5f}: {tokenizer.decode(tokens)[:60]!r}")
        runs.append({"prompt": prompt, "input_ids": input_ids.tolist(), "greedy": tokens, "min_gap": f32(gap)})
    last = model(torch.tensor([runs[0]["input_ids"]])).logits[0, -1].topk(20)
    top = [[token.item(), f32(logit)] for token, logit in zip(last.indices, last.values)]

    # Held out of fable's training: Anna Sewell, Black Beauty (1877), chapter 18.
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


# --- Reading back ------------------------------------------------------------------


def load_back(folder):
    """The folder as transformers loads it, with the two forms it does not know translated."""
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
        if worst > 1e-4 or tokens != expected["greedy"] or stored["input_ids"].tolist() != expected["input_ids"]:
            raise RuntimeError(f"{folder.name}: transformers disagrees with what is stored (by {worst:.1e})")
        print(f"{folder.name}: {len(stored)} tensors, largest difference {worst:.1e}, greedy equal")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", metavar="WHAT", help=f"of: {', '.join(TINY)}, fable (default: all)")
    parser.add_argument("--check", action="store_true", help="write nothing; load the tiny-* folders through transformers and compare")
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
