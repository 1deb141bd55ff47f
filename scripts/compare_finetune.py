#!/usr/bin/env python3
"""Fine-tune fable with Hornbook and with PyTorch on one text, and print both curves of the held-out loss.

    scripts/compare_finetune.py [--hornbook target/release/hornbook] [--text FILE] [--epochs 3]

The text is cut into sequences as Hornbook does; weights, batches' size, learning rates,
optimizer and clipping are the same, only the order of the sequences is another. Without
--text, it is the licence texts in /usr/share/common-licenses (Debian), about 200 KB in a
style that fable has never seen. Needs torch, transformers and tokenizers.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

try:
    import torch
    from tokenizers import Tokenizer
    from torch.nn.functional import cross_entropy
    from transformers import GPT2LMHeadModel
except ImportError as error:
    sys.exit(f"compare_finetune.py: {error.name} is not installed: pip install -r scripts/requirements.txt")

FABLE = Path(__file__).resolve().parent.parent / "models" / "fable"
END_OF_TEXT = "<|endoftext|>"
BATCH, LEARNING_RATE, WEIGHT_DECAY, WARMUP, DECAY = 4096, 3e-4, 0.1, 0.05, 0.5
PARAGRAPHS = 20  # in a document


def licences():
    files = sorted(path for path in Path("/usr/share/common-licenses").iterdir() if not path.is_symlink())
    text = "\n\n".join(path.read_text(errors="replace") for path in files)[:200_000]
    paragraphs = text.split("\n\n")
    return ["\n\n".join(paragraphs[i : i + PARAGRAPHS]) for i in range(0, len(paragraphs), PARAGRAPHS)]


def sequences(documents, tokenizer, context):
    """Documents between end-of-text tokens, cut after `context` predictions."""
    end, result = tokenizer.token_to_id(END_OF_TEXT), []
    for document in documents:
        ids = [end, *tokenizer.encode(document.strip()).ids, end]
        result += [ids[i : i + context + 1] for i in range(0, len(ids) - 1, context)]
    return result


def loss_of(model, batch):
    """The mean over all predictions, and their number."""
    n, longest = sum(len(ids) - 1 for ids in batch), max(map(len, batch))
    x = torch.tensor([ids[:-1] + [0] * (longest - len(ids)) for ids in batch])
    y = torch.tensor([ids[1:] + [-100] * (longest - len(ids)) for ids in batch])
    logits = model(x).logits
    return cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="sum") / n, n


def held_out_loss(model, valid):
    with torch.no_grad():
        parts = [loss_of(model, valid[i : i + 8]) for i in range(0, len(valid), 8)]
    return sum(float(loss) * n for loss, n in parts) / sum(n for _, n in parts)


def finetune(train, valid, epochs, evaluated_at):
    """PyTorch's held-out losses by step."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel.from_pretrained(FABLE, dtype=torch.float32).train()
    decayed = [p for p in model.parameters() if p.dim() == 2]
    others = [p for p in model.parameters() if p.dim() != 2]
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(0.9, 0.95), eps=1e-8)
    order = [i for _ in range(epochs) for i in torch.randperm(len(train)).tolist()]
    tokens = sum(len(train[i]) - 1 for i in order)
    steps = -(-tokens // BATCH)
    losses, read, step = {0: held_out_loss(model.eval(), valid)}, 0, 0
    batch, model = [], model.train()
    for place, i in enumerate(order):
        batch.append(train[i])
        read += len(train[i]) - 1
        if read < (step + 1) * tokens / steps and place + 1 < len(order):
            continue
        step += 1
        rate = min(1, step / max(1, round(WARMUP * steps)), (steps + 1 - step) / (round(DECAY * steps) + 1))
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * rate
        optimizer.zero_grad()
        loss_of(model, batch)[0].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        batch = []
        if step in evaluated_at:
            losses[step] = held_out_loss(model.eval(), valid)
            model.train()
    return losses


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hornbook", default="target/release/hornbook")
    parser.add_argument("--text", type=Path)
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    documents = options.text.read_text().split(END_OF_TEXT) if options.text else licences()
    documents = [document for document in documents if document.strip()]
    held_out, training = documents[::10], [document for i, document in enumerate(documents) if i % 10]
    tokenizer = Tokenizer.from_file(str(FABLE / "tokenizer.json"))
    train, valid = (sequences(part, tokenizer, 512) for part in (training, held_out))

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for name, part in (("train.txt", training), ("valid.txt", held_out)):
            (folder / name).write_text(END_OF_TEXT.join(part))
        command = [Path(options.hornbook).absolute(), "finetune", "--data", "train.txt", "--valid", "valid.txt"]
        command += ["--epochs", str(options.epochs), "--batch", str(BATCH), "-o", "out"]
        subprocess.run(command, cwd=folder, check=True, stderr=subprocess.DEVNULL)
        log = map(json.loads, (folder / "out" / "log.jsonl").read_text().splitlines())
        ours = {line["step"]: line["held_out_loss"] for line in log if "held_out_loss" in line}

    theirs = finetune(train, valid, options.epochs, ours)
    print(f"{sum(map(len, training)):,} characters to train on, {sum(map(len, held_out)):,} held out; nats per token")
    print("| step | Hornbook | PyTorch |\n| ---: | ---: | ---: |")
    for step, loss in ours.items():
        print(f"| {step} | {loss:.3f} | {theirs.get(step, float('nan')):.3f} |")


if __name__ == "__main__":
    main()
