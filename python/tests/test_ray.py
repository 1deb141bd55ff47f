"""What an actor of hornbook.ray writes. The cluster is in tests/ray."""

import numpy as np

import hornbook
import hornbook.ray


def writer(seed):
    return hornbook.ray.Writer("fable", {"threads": 1}, "prompt", "text", seed, {"max_new_tokens": 12})


def test_texts_depend_on_the_row_and_not_on_the_batch(model):
    prompts = ["The king", "A fox", "The king", "", "Öl 🦊"] * 4
    write = writer(5)
    whole = write({"prompt": np.array(prompts), "id": np.arange(20)})
    assert list(whole["id"]) == list(range(20))
    texts = whole["text"]
    assert texts[0] == texts[2] and len(set(texts)) == 4
    parts = [write({"prompt": np.array(prompts[i : i + 7])})["text"] for i in range(0, 20, 7)]
    assert sum(parts, []) == texts
    assert writer(6)({"prompt": np.array(prompts)})["text"] != texts


def test_a_column_of_seeds_gives_each_row_its_own(model):
    rows = {"prompt": np.array(["The king"] * 3), "seed": np.array([1, 2, 1])}
    texts = writer("seed")(rows)["text"]
    expected = [model.generate("The king", seed=seed, max_new_tokens=12).text for seed in (1, 2, 1)]
    assert texts == expected
