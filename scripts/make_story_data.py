#!/usr/bin/env python3
"""Sort stories into training files for a small storyteller, as docs/training.md uses them.

Every input is plain text, or the same compressed by gzip, with <|endoftext|> between documents. Written are
novels.txt, tales.txt, plain.txt, the easiest documents of the first two as easy.txt, every twentieth plain
story as valid-plain.txt, and twice.txt: passages that come two to four times, for a model to learn to look up
what followed a token the last time (an induction head). Needs only Python.
"""

import argparse
import gzip
import random
import re
from collections import Counter
from pathlib import Path

EXAMPLES = """examples:
  python scripts/make_story_data.py --novels novels.txt.gz --tales tales.txt.gz --plain stories.txt.gz -o data
"""

END_OF_TEXT = "<|endoftext|>"
COMMON_WORDS = 2500
EASY_CHARACTERS = 22_000_000
REPEATED_CHARACTERS = 6_000_000
# What comes before a sentence that is not the first.
BEFORE_SENTENCE = re.compile(r"""[.!?]['"]?\s+(?=[A-Z"])""")


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


def repeated(texts, rng):
    """Passages of 150 to 960 characters, as often as fits into 1,900 characters, but two to four times."""
    texts = [text for text in texts if len(text) > 400]
    total = 0
    while total < REPEATED_CHARACTERS:
        text = rng.choice(texts)
        starts = [match.end() for match in BEFORE_SENTENCE.finditer(text)]
        if not starts:
            continue
        start, length = rng.choice(starts), int(160 * 6.0 ** rng.random())
        passage = text[start : start + length]
        if len(passage) < 150:
            continue
        passage = passage[: passage.rfind(" ")].strip()
        times = rng.randint(2, min(4, max(2, 1900 // (len(passage) + 4))))
        document = "\n\n".join([passage] * times)
        total += len(document)
        yield document


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("novels", "tales", "plain"):
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="FILE")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    options = parser.parse_args()

    novels, tales, plain = (documents(path) for path in (options.novels, options.tales, options.plain))
    held_out, plain = plain[::20], [text for i, text in enumerate(plain) if i % 20]
    counts = Counter(word for text in plain + tales for word in words(text))
    common = {word for word, _ in counts.most_common(COMMON_WORDS)}
    easy = list(easiest(tales + novels, common))
    options.output.mkdir(parents=True, exist_ok=True)
    twice = list(repeated(tales + easy + novels, random.Random(options.seed)))
    files = {"novels": novels, "tales": tales, "easy": easy, "plain": plain, "twice": twice}
    files["valid-plain"] = held_out
    for name, texts in files.items():
        path = options.output / f"{name}.txt"
        path.write_text(f"\n{END_OF_TEXT}\n".join(texts) + "\n", encoding="utf-8")
        print(f"{path}: {len(texts)} documents, {sum(map(len, texts))} characters")


if __name__ == "__main__":
    main()
