"""Greedy search, beam search and logit processors of transformers; near ties are rejected."""

import numpy as np
import torch
from tiny_gpt2 import NearTie, widened
from transformers import GenerationConfig, LogitsProcessorList
from transformers.generation import logits_process as lp

N_BEAM = 24
LENGTH_PENALTIES = (0.8, 1.0, 1.2)
GREEDY_GAP, BEAM_GAP = 1e-3, 1e-4


def f32(value):
    """The shortest decimal that reads back as the same f32."""
    return float(str(np.float32(value)))


@torch.no_grad()
def greedy(model, input_ids, n_tokens):
    """Returns the new ids and the smallest gap between the best two logits of any step."""
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=n_tokens,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_logits=True,
    )
    model.generation_config = GenerationConfig()  # no eos: never stop
    out = model.generate(
        input_ids[None], generation_config=settings, attention_mask=torch.ones_like(input_ids[None])
    )
    best = torch.stack(out.logits)[:, 0].topk(2, dim=-1).values
    gap = (best[:, 0] - best[:, 1]).min().item()
    return out.sequences[0, len(input_ids) :].tolist(), gap


@torch.no_grad()
def beam_search(model, input_ids, eos, length_penalty, early_stopping):
    """Returns four hypotheses, best first: [(new ids, score)]. NearTie if two candidates are too close."""
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
        raise NearTie(f"beam candidates are {min(gaps):.1e} apart")
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
    """Returns the id that, used as eos, ends some hypotheses and makes the searches differ most."""
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
    """Applies the named processors in order; NearTie if small noise would change the kept tokens."""
    chain = LogitsProcessorList(PROCESSORS[name](value) for name, value in settings.items())
    result = chain(history[None], logits[None].clone())[0]
    for seed in range(4):
        noise = np.random.default_rng(seed).standard_normal(len(logits)).astype(np.float32)
        noisy = chain(history[None], (logits + 1e-4 * torch.from_numpy(noise))[None])[0]
        if not torch.equal(noisy.isinf(), result.isinf()):
            raise NearTie(f"{list(settings)} truncates at a near tie")
    return [None if value.isinf() else f32(value) for value in result]


def all_processed(history, logits):
    alone = {name: {"value": v, "logits": process({name: v}, history, logits)} for name, v in ALONE.items()}
    for name in ("top_k", "top_p", "min_p", "typical_p"):
        if alone[name]["logits"].count(None) > len(logits) - 2:
            raise NearTie(f"{name} leaves one token")
    return alone | {"chain": {"settings": CHAIN, "logits": process(CHAIN, history, logits)}}
