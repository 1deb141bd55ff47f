#!/usr/bin/env python3
"""EleutherAI's harness against `hornbook serve`: the loglikelihoods it reads from the API are those that
`hornbook perplexity` sums up over the same texts.

Run by hand:

    python3 -m venv harness && harness/bin/pip install "lm_eval[api]==0.4.13" torch transformers
    harness/bin/python tests/clients/lm_eval_check.py target/release/hornbook

Each line of lm_eval_texts.jsonl is asked for in two ways. `loglikelihood_rolling` scores a whole text after the token
that begins one; `hornbook perplexity --special` reads that token too. `loglikelihood` scores a continuation after its
context: what perplexity sums up over both, less what it sums up over the context. The server is given its own
tokenizer's files, so no model is fetched from anywhere.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from runner import server

HERE = Path(__file__).parent
TEXTS = HERE / "lm_eval_texts.jsonl"
CONTEXT = 512
BEGINNING = "<|endoftext|>"
# Nats. Both sides sum the same 32 bit logprobs up, one of them from decimals.
TOLERANCE = 1e-4


def tasks():
    """The two tasks, as the harness wants them."""
    shared = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(TEXTS)}},
        "test_split": "test",
        "target_delimiter": "",
    }
    rolling = {
        "task": "hornbook_rolling",
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{context}}{{continuation}}",
        "metric_list": [{"metric": "bits_per_byte"}],
    }
    continuation = {
        "task": "hornbook_continuation",
        "output_type": "loglikelihood",
        "doc_to_text": "{{context}}",
        "doc_to_target": "{{continuation}}",
        "metric_list": [{"metric": "perplexity"}],
    }
    return [shared | rolling, shared | continuation]


def of_the_harness(address, tokenizer):
    """Each task's loglikelihoods, in the texts' order."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    os.environ |= {"OPENAI_API_KEY": "any", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    import lm_eval

    logging.getLogger().setLevel(logging.WARNING)
    arguments = {
        "model": "fable",
        "base_url": f"{address}/completions",
        "tokenizer": str(tokenizer),
        "tokenizer_backend": "huggingface",
        "max_length": CONTEXT,
        "num_concurrent": 4,
    }
    found = lm_eval.simple_evaluate(
        model="local-completions", model_args=arguments, tasks=tasks(), log_samples=True, bootstrap_iters=0
    )
    loglikelihoods = {}
    for task, samples in found["samples"].items():
        in_order = sorted(samples, key=lambda sample: sample["doc_id"])
        # A number, or one with whether the model would have said the same.
        values = [sample["filtered_resps"][0] for sample in in_order]
        loglikelihoods[task] = [value[0] if isinstance(value, (list, tuple)) else value for value in values]
    return loglikelihoods


def of_perplexity(binary, text):
    """What `hornbook perplexity` sums up over a text; all tokens but the first."""
    command = [binary, "perplexity", "-", "--special", "--json", "--kv-precision", "f32"]
    found = subprocess.run(command, input=text, capture_output=True, text=True)
    if found.returncode != 0:
        sys.exit(f"{' '.join(command)}: {found.stderr}")
    report = json.loads(found.stdout)
    return -report["nats_per_token"] * report["tokens"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=os.path.abspath, help="the program, e.g. target/release/hornbook")
    parser.add_argument("--tokenizer", type=Path, default=HERE / "../../models/fable", help="its tokenizer's folder")
    args = parser.parse_args()
    texts = [json.loads(line) for line in TEXTS.read_text().splitlines()]
    with tempfile.TemporaryDirectory() as folder:
        with server(args.binary, Path(folder) / "server.log") as address:
            found = of_the_harness(address, args.tokenizer.resolve())

    print(f"lm_eval {version('lm_eval')}, transformers {version('transformers')}, {len(texts)} texts")
    print(f"{'':4}{'rolling':>12}{'perplexity':>14}{'continuation':>14}{'perplexity':>14}")
    worst = 0.0
    rows = zip(texts, found["hornbook_rolling"], found["hornbook_continuation"], strict=True)
    for i, (text, rolling, continuation) in enumerate(rows):
        whole = text["context"] + text["continuation"]
        of_whole = of_perplexity(args.binary, BEGINNING + whole)
        of_rest = of_perplexity(args.binary, whole) - of_perplexity(args.binary, text["context"])
        worst = max(worst, abs(rolling - of_whole), abs(continuation - of_rest))
        print(f"{i + 1:3} {rolling:12.5f}{of_whole:14.5f}{continuation:14.5f}{of_rest:14.5f}")
    print(f"sums {sum(found['hornbook_rolling']):.5f} and {sum(found['hornbook_continuation']):.5f} nats")
    print(f"greatest difference {worst:.1e} nats, at most {TOLERANCE} allowed")
    sys.exit(not worst <= TOLERANCE)


if __name__ == "__main__":
    main()
