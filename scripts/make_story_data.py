#!/usr/bin/env python3
"""Sort stories into training files for a small storyteller, as docs/training.md uses them.

Every input is plain text, or the same compressed by gzip, with <|endoftext|> between documents. Written are
novels.txt, tales.txt, plain.txt, the easiest documents of the first two as easy.txt, every twentieth plain
story as valid-plain.txt, and repeats.bin: random tokens that come two or three times, for a model to find
what followed a token the last time (an induction head). Needs only Python.
"""

import argparse
import array
import gzip
import json
import random
import re
import sys
from collections import Counter
from pathlib import Path

EXAMPLES = """examples:
  python scripts/make_story_data.py --novels novels.txt.gz --tales tales.txt.gz --plain stories.txt.gz -o data
"""

END_OF_TEXT = "<|endoftext|>"
COMMON_WORDS = 2500
EASY_CHARACTERS = 22_000_000
REPEATED_TOKENS, MAX_DOCUMENT = 1_500_000, 510


def documents(path):
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        return [text.strip() for text in file.read().split(END_OF_TEXT) if text.strip()]


def words(text):
    return re.findall(r"[a-z']+", text.lower())


def hardness(text, common):
    """Words a sentence, and the share of words that are not common: what makes a text hard for a child."""
    found = words(text)
    sentences = max(1, len(re.findall(r"[.!?]+", text)))
    rare = sum(word not in common for word in found) / max(1, len(found))
    return len(found) / sentences / 18 + rare / 0.09


def easiest(texts, common):
    total = 0
    for text in sorted(texts, key=lambda text: hardness(text, common)):
        yield text
        total += len(text)
        if total > EASY_CHARACTERS:
            break


def repeats(tokenizer, rng):
    """Documents of 16 to 250 distinct random tokens, two or three times, as 16-bit integers."""
    special = {token["id"] for token in tokenizer["added_tokens"] if token["special"]}
    end = next(token["id"] for token in tokenizer["added_tokens"] if token["content"] == END_OF_TEXT)
    ids = [id for id in tokenizer["model"]["vocab"].values() if id not in special]
    ids.sort()
    tokens = array.array("H")
    while len(tokens) < REPEATED_TOKENS:
        length = rng.randint(16, 250)
        times = 2 if length > 125 else rng.choice([2, 2, 2, 3])
        tokens.extend((rng.sample(ids, length) * times)[:MAX_DOCUMENT] + [end])
    if sys.byteorder != "little":
        tokens.byteswap()
    return tokens.tobytes()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("novels", "tales", "plain"):
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="FILE")
    tokenizer = Path(__file__).parent.parent / "models" / "fable" / "tokenizer.json"
    parser.add_argument("--tokenizer", type=Path, default=tokenizer, metavar="FILE", help="a tokenizer.json")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    options = parser.parse_args()

    novels, tales, plain = (documents(path) for path in (options.novels, options.tales, options.plain))
    held_out, plain = plain[::20], [text for i, text in enumerate(plain) if i % 20]
    counts = Counter(word for text in plain + tales for word in words(text))
    common = {word for word, _ in counts.most_common(COMMON_WORDS)}
    easy = list(easiest(tales + novels, common))
    options.output.mkdir(parents=True, exist_ok=True)
    files = {"novels": novels, "tales": tales, "easy": easy, "plain": plain, "valid-plain": held_out}
    for name, texts in files.items():
        path = options.output / f"{name}.txt"
        path.write_text(f"\n{END_OF_TEXT}\n".join(texts) + "\n", encoding="utf-8")
        print(f"{path}: {len(texts)} documents, {sum(map(len, texts))} characters")
    path = options.output / "repeats.bin"
    path.write_bytes(repeats(json.loads(options.tokenizer.read_text("utf-8")), random.Random(options.seed)))
    print(f"{path}: {path.stat().st_size // 2} tokens")


if __name__ == "__main__":
    main()
