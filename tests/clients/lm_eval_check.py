#!/usr/bin/env python3
"""Runs EleutherAI's lm_eval against `hornbook serve`, and checks that its loglikelihoods equal those of
`hornbook perplexity` for the same texts.

Run by hand:

    python3 -m venv harness && harness/bin/pip install "lm_eval[api]==0.4.13" torch transformers
    harness/bin/python tests/clients/lm_eval_check.py target/release/hornbook

Each line of lm_eval_texts.jsonl is scored in two ways. `loglikelihood_rolling` scores a whole text after the
end-of-text token, as `hornbook perplexity --special` does. `loglikelihood` scores a continuation given its
context: the perplexity sum of both minus that of the context. lm_eval gets the tokenizer's files, so nothing
is downloaded.
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
END_OF_TEXT = "<|endoftext|>"
# In nats. Both sides sum the same f32 logprobs, lm_eval from their decimal form.
TOLERANCE = 1e-4


def tasks():
    """Returns the configurations of the two tasks."""
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


def lm_eval_loglikelihoods(address, tokenizer):
    """Returns each task's loglikelihoods, in the order of the texts."""
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
    results = lm_eval.simple_evaluate(
        model="local-completions", model_args=arguments, tasks=tasks(), log_samples=True, bootstrap_iters=0
    )
    loglikelihoods = {}
    for task, samples in results["samples"].items():
        in_order = sorted(samples, key=lambda sample: sample["doc_id"])
        # A loglikelihood, or a pair of it and whether greedy decoding gives the same text.
        values = [sample["filtered_resps"][0] for sample in in_order]
        loglikelihoods[task] = [value[0] if isinstance(value, (list, tuple)) else value for value in values]
    return loglikelihoods


def perplexity_loglikelihood(binary, text):
    """Returns the loglikelihood of a text from `hornbook perplexity`: all tokens but the first."""
    command = [binary, "perplexity", "-", "--special", "--json", "--kv-precision", "f32"]
    result = subprocess.run(command, input=text, capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"{' '.join(command)}: {result.stderr}")
    report = json.loads(result.stdout)
    return -report["nats_per_token"] * report["tokens"]


def main():
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("binary", type=os.path.abspath, help="the binary, e.g. target/release/hornbook")
    tokenizer = HERE / "../../models/fable"
    parser.add_argument("--tokenizer", type=Path, default=tokenizer, help="directory of the tokenizer")
    args = parser.parse_args()
    texts = [json.loads(line) for line in TEXTS.read_text().splitlines()]
    with tempfile.TemporaryDirectory() as folder:
        with server(args.binary, Path(folder) / "server.log") as address:
            loglikelihoods = lm_eval_loglikelihoods(address, args.tokenizer.resolve())

    print(f"lm_eval {version('lm_eval')}, transformers {version('transformers')}, {len(texts)} texts")
    print(f"{'':4}{'rolling':>12}{'perplexity':>14}{'continuation':>14}{'perplexity':>14}")
    max_error = 0.0
    columns = loglikelihoods["hornbook_rolling"], loglikelihoods["hornbook_continuation"]
    rows = zip(texts, *columns, strict=True)
    for i, (text, rolling, continuation) in enumerate(rows):
        whole = text["context"] + text["continuation"]
        expected_rolling = perplexity_loglikelihood(args.binary, END_OF_TEXT + whole)
        context = perplexity_loglikelihood(args.binary, text["context"])
        expected_continuation = perplexity_loglikelihood(args.binary, whole) - context
        errors = abs(rolling - expected_rolling), abs(continuation - expected_continuation)
        max_error = max(max_error, *errors)
        row = f"{rolling:12.5f}{expected_rolling:14.5f}{continuation:14.5f}{expected_continuation:14.5f}"
        print(f"{i + 1:3} {row}")
    sums = {task: sum(values) for task, values in loglikelihoods.items()}
    print(f"sums {sums['hornbook_rolling']:.5f} and {sums['hornbook_continuation']:.5f} nats")
    print(f"maximum difference {max_error:.1e} nats, tolerance {TOLERANCE}")
    sys.exit(not max_error <= TOLERANCE)


if __name__ == "__main__":
    main()
