"""Write the reference outputs of tests/sampling_reference.rs: warpers.json and beam.json in tests/data.

Run by hand:  python scripts/make_sampling_reference.py
Needs torch and transformers; both files record the version of transformers.

No checkpoint is needed: processors and warpers run on random logits, and beam search runs on a lookup table,
logits = table[last token] + table[length] / 2, small enough for the file. (With the last token alone, two
cycles in either order would have equal scores, and rounding would decide.)
"""

import json
import pathlib

import torch
import transformers
from transformers import GenerationConfig, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.generation import logits_process as lp
from transformers.modeling_outputs import CausalLMOutput

DATA = pathlib.Path(__file__).parent.parent / "tests" / "data"
EOS = 0


def to_json_floats(tensor):
    """Returns floats with nine digits, which read back as the same f32; -inf as None."""
    return [None if x == float("-inf") else float(f"{x:.9g}") for x in tensor.tolist()]


# Processors and warpers

# Tokens are below 9, so that a sequence of each list is about to be completed.
BAD_WORDS = [
    [[11], [0], *([i, 10 + i] for i in range(9))],
    [[47], *([i, j, (7 * i + j) % 48] for i in range(9) for j in range(9))],
]
CASES = [
    ("repetition_penalty", [1.3, 0.7], lambda p: lp.RepetitionPenaltyLogitsProcessor(p)),
    ("no_repeat_ngram_size", [1, 2, 3], lambda p: lp.NoRepeatNGramLogitsProcessor(p)),
    ("min_tokens", [5, 4], lambda p: lp.MinNewTokensLengthLogitsProcessor(PROMPT_LEN, p, [EOS, 3])),
    ("bad_words_ids", BAD_WORDS, lambda p: lp.NoBadWordsLogitsProcessor(p)),
    ("allowed_token_ids", [[3, 47, 0, 12, 12]], lambda p: lp.PrefixConstrainedLogitsProcessor(lambda *_: p, 1)),
    ("temperature", [0.5, 1.7], lambda p: lp.TemperatureLogitsWarper(p)),
    ("top_k", [1, 5, 20, 100], lambda p: lp.TopKLogitsWarper(p)),
    ("top_p", [0.01, 0.3, 0.8, 0.95, 0.999], lambda p: lp.TopPLogitsWarper(p)),
    ("min_p", [0.02, 0.3, 1.0], lambda p: lp.MinPLogitsWarper(p)),
    ("typical_p", [0.1, 0.5, 0.9, 0.99], lambda p: lp.TypicalLogitsWarper(p)),
]
PROMPT_LEN = 8
COMBINED = {
    "repetition_penalty": 1.2,
    "no_repeat_ngram_size": 2,
    "min_tokens": 5,
    "temperature": 0.8,
    "top_k": 25,
    "top_p": 0.9,
    "min_p": 0.01,
    "typical_p": 0.8,
}


def warpers():
    inputs, cases = [], []
    for seed in range(4):
        torch.manual_seed(seed)
        vocab = 48
        logits = torch.randn(vocab) * [1.0, 2.0, 4.0, 3.0][seed] - [0.0, 3.0, 30.0, -5.0][seed]
        if seed == 3:  # ties, also at the top-k boundary
            logits = logits.round()
        tokens = torch.randint(0, 9, (PROMPT_LEN + 4,))
        inputs.append(
            {
                "logits": to_json_floats(logits),
                "prompt": tokens[:PROMPT_LEN].tolist(),
                "generated": tokens[PROMPT_LEN:].tolist(),
                "stop_ids": [EOS, 3],
            }
        )

        def run(options):
            scores = logits[None]
            for name, _, make in CASES:  # the order of generate()
                if name in options:
                    scores = make(options[name])(tokens[None], scores)
            kept = [i for i, s in enumerate(scores[0].tolist()) if s != float("-inf")]
            probabilities = scores[0].double().softmax(-1)[kept]
            cases.append(
                {
                    "input": seed,
                    "options": options,
                    "kept": kept,
                    "probabilities": to_json_floats(probabilities),
                }
            )

        for name, values, _ in CASES:
            # With ties, the tokens that top-p keeps depend on the sort.
            if seed == 3 and name == "top_p":
                continue
            for value in values:
                run({name: value})
        run({k: v for k, v in COMBINED.items() if not (seed == 3 and k == "top_p")})
    return {"transformers": transformers.__version__, "inputs": inputs, "cases": cases}


# Beam search


class TableConfig(PretrainedConfig):
    model_type = "table"


class TableModel(PreTrainedModel, GenerationMixin):
    """logits = table[last token] + table[length] / 2."""

    config_class = TableConfig
    _supports_cache_class = False

    def __init__(self, config, table):
        super().__init__(config)
        self.table = torch.nn.Parameter(table, requires_grad=False)
        self.post_init()

    def _init_weights(self, module):
        pass

    def prepare_inputs_for_generation(self, input_ids, **kwargs):
        return {"input_ids": input_ids}

    def forward(self, input_ids, return_dict=True, **kwargs):
        by_length = self.table[input_ids.shape[1] % len(self.table)]
        return CausalLMOutput(logits=self.table[input_ids[:, -1:]] + by_length / 2)


def search(model, prompt, options, num_return):
    config = GenerationConfig(
        do_sample=False,
        use_cache=False,
        pad_token_id=EOS,
        return_dict_in_generate=True,
        output_scores=True,
        num_return_sequences=num_return,
        **options,
    )
    out = model.generate(torch.tensor([prompt]), generation_config=config)
    eos = options["eos_token_id"]
    eos = eos if isinstance(eos, list) else [eos]
    scores = out.sequences_scores.tolist() if options["num_beams"] > 1 else [None]
    hypotheses = []
    for row, score in zip(out.sequences.tolist(), scores):
        tokens = row[len(prompt) :]
        for i, token in enumerate(tokens):
            if token in eos:
                tokens = tokens[: i + 1]
                break
        hypotheses.append({"tokens": tokens, "score": None if score is None else float(f"{score:.9g}")})
    return hypotheses


def beam():
    tables, searches = [], []
    vocab = 24
    for seed in range(4):
        torch.manual_seed(200 + seed)
        table = torch.randn(vocab, vocab) * [1.5, 2.0, 1.0, 2.5][seed]
        table[:, EOS] += [0.6, 1.0, 0.3, 1.3][seed]  # eos is likely, sometimes early
        table = torch.tensor([[float(f"{x:.4f}") for x in row] for row in table.tolist()])
        tables.append([to_json_floats(row) for row in table])
        model = TableModel(TableConfig(vocab_size=vocab), table).eval()
        prompt = [5, 7 + seed]

        def run(num_return=1, **options):
            options = {"eos_token_id": EOS, **options}
            found = search(model, prompt, options, num_return)
            searches.append({"table": seed, "prompt": prompt, "options": options, "hypotheses": found})

        for num_beams in [1, 2, 3, 4, 5]:
            for length_penalty in [0.8, 1.0, 1.2]:
                for early_stopping in [False, True, "never"]:
                    run(
                        num_return=num_beams,
                        num_beams=num_beams,
                        length_penalty=length_penalty,
                        early_stopping=early_stopping,
                        max_new_tokens=12,
                    )
        for length_penalty in [-1.0, 0.0, 3.0]:
            for early_stopping in [False, "never"]:
                run(
                    num_return=3,
                    num_beams=3,
                    length_penalty=length_penalty,
                    early_stopping=early_stopping,
                    max_new_tokens=20,
                )
        for extra in [
            {"repetition_penalty": 1.4},
            {"no_repeat_ngram_size": 2},
            {"min_new_tokens": 6},
            {"eos_token_id": [EOS, 4, 9]},
            {
                "repetition_penalty": 1.2,
                "no_repeat_ngram_size": 3,
                "min_new_tokens": 3,
                "eos_token_id": [EOS, 4],
            },
        ]:
            for num_beams in [1, 4]:
                run(num_return=num_beams, num_beams=num_beams, max_new_tokens=16, **extra)
        run(num_return=4, num_beams=4, max_new_tokens=1)
    return {"transformers": transformers.__version__, "tables": tables, "searches": searches}


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    DATA.mkdir(parents=True, exist_ok=True)
    for name, data in [("warpers", warpers()), ("beam", beam())]:
        (DATA / f"{name}.json").write_text(json.dumps(data, separators=(",", ":")) + "\n")
