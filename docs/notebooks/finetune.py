# %% [markdown]
# # Fine-tune and compare
#
# `fable` has read novels and fairy tales, and hardly a letter. We write it two hundred, train it on
# them for a few seconds, and look at what it has learned: first by its numbers, then by its words.

# %%
import random
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import hornbook

names = ["Anna", "Tom", "Grandmother", "Uncle John", "Mary", "Peter"]
news = [
    "the garden is green",
    "the river has risen",
    "the cat has kittens",
    "it rained all week",
    "the apples are ripe",
]
wishes = ["come and see us soon", "write to me soon", "bring your good shoes", "kiss the children for me"]


def letter(choose):
    to, sender = choose.sample(names, 2)
    first, second = choose.sample(news, 2)
    wish = choose.choice(wishes)
    return f"Dear {to},\nI am well, and {first}. At home {second}. Please {wish}!\nYours, {sender}"


choose = random.Random(1)
letters = [letter(choose) for _ in range(200)]
unseen = letter(choose)
print(letters[0])

# %% [markdown]
# A file of texts, separated by the end-of-text token, is all that training needs. With `lora=8` the
# model stays as it is, and an *adapter* is trained beside it: for each layer two thin matrices,
# whose product is added to what the layer computes (Hu et al. 2021). It has a thirtieth of the
# model's numbers. A twentieth of the letters is held out, and the loss on them shows how the
# training goes.

# %%
folder = Path(tempfile.mkdtemp())
(folder / "letters.txt").write_text("<|endoftext|>".join(letters))

before = hornbook.Model.from_pretrained("fable")
options = {"lora": 8, "lora_targets": "all-linear", "epochs": 1, "batch": 128}  # of `hornbook finetune`
after = hornbook.finetune(folder / "letters.txt", folder / "adapter", **options)

# %% [markdown]
# ## In numbers
#
# The *perplexity* of a text says among how many equally likely tokens a model seems to choose at
# each step. Neither text below was trained on: the letter shows what was learned, and the fairy
# tale what was forgotten for it.

# %%
tale = "Once upon a time there was a king who had three sons, and the youngest of them was called Jack."
for title, text in [("a letter", unseen), ("a fairy tale", tale)]:
    print(
        f"{title:>13}: perplexity {before.score(text).perplexity:6.1f} → {after.score(text).perplexity:6.1f}"
    )

# %% [markdown]
# Which tokens are easier now? Each bar is a token of the unseen letter; the height says how
# surprised each model is.

# %%
labels = before.tokenizer.labels(unseen)[1:]
surprise = [-model.score(unseen).logprobs / np.log(2) for model in (before, after)]
plt.figure(figsize=(13, 3.5))
for shift, bits, name in zip((-0.2, 0.2), surprise, ("before", "after")):
    plt.bar(np.arange(len(labels)) + shift, bits, width=0.4, label=name)
plt.xticks(range(len(labels)), labels, rotation=90)
plt.ylabel("bits")
plt.legend()
plt.tight_layout()
plt.show()

# %% [markdown]
# What all letters have in common has become nearly free. What differs from letter to letter, the
# names and the news, still costs about log₂ of the number of choices, 2.6 bits for six names: that
# is not a failure, it is all that can be known.
#
# ## In words

# %%
for title, model in [("before", before), ("after", after)]:
    print(f"{title}:\nDear Anna,{model.generate('Dear Anna,', max_new_tokens=60, seed=4)}\n")

# %% [markdown]
# ## Where the change is
#
# Both models read the same letter, and we compare their residual streams: how far has the adapter
# moved each token's vector after each block, relative to its length?

# %%
depths = [f"blocks.{layer}.hook_resid_post" for layer in range(before.config.n_layer)]
_, old = before.run_with_cache(unseen, depths)
_, new = after.run_with_cache(unseen, depths)
moved = [np.linalg.norm(new[name] - old[name], axis=1) / np.linalg.norm(old[name], axis=1) for name in depths]

plt.figure(figsize=(13, 3))
plt.imshow(moved, cmap="Blues", aspect="auto", vmin=0)
plt.colorbar(label="part of its length")
plt.xticks(range(len(labels) + 1), before.tokenizer.labels(unseen), rotation=90)
plt.yticks(range(len(depths)), [f"after block {layer}" for layer in range(len(depths))])
plt.tight_layout()
plt.show()

# %% [markdown]
# Things to try: letters of your own, in the same file; without `lora` all weights are trained,
# which learns faster and forgets more; `epochs=3`, and see where the unseen letter's perplexity
# stops falling.
