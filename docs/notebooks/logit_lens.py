# %% [markdown]
# # From logits to words: the logit lens, and sampling
#
# After its last layer a language model has a number for every token of its vocabulary, the
# *logits*. This notebook looks at both sides of that moment: how the prediction grows from layer to
# layer, and how one token is drawn from it.

# %%
import matplotlib.pyplot as plt
import numpy as np

import hornbook

model = hornbook.Model.from_pretrained("fable")
text = "The cat sat on the mat because it"
labels = model.tokenizer.labels(text)
config = model.config


def softmax(logits):
    e = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def label(id):
    return model.tokenizer.labels([int(id)])[0]


logits, cache = model.run_with_cache(text)
probabilities = softmax(logits[-1])
for id in probabilities.argsort()[::-1][:8]:
    print(f"{label(id):>8} {probabilities[id]:6.1%}")

# %% [markdown]
# ## The logit lens
#
# Every block reads the residual stream and adds to it, and the last vector is turned into logits by
# a layer norm and a matrix. Nothing stops us from doing that earlier: what would the model say if
# it had only three blocks? To ask, we put the stream after block 2 where the stream after the last
# block belongs. That is the *logit lens* (nostalgebraist 2020), in one hook.

# %%
last = f"blocks.{config.n_layer - 1}.hook_resid_post"
depths = ["blocks.0.hook_resid_pre"] + [f"blocks.{layer}.hook_resid_post" for layer in range(config.n_layer)]
lens = [softmax(model.run_with_hooks(text, {last: lambda _, name=name: cache[name]})) for name in depths]
assert np.array_equal(lens[-1], softmax(logits))  # all blocks: the model itself

rows = ["embedding"] + [f"after block {layer}" for layer in range(config.n_layer)]
best = np.array([p.max(axis=-1) for p in lens])
plt.figure(figsize=(11, 4.5))
plt.imshow(best, vmin=0, vmax=0.6, cmap="Blues", aspect="auto")
for row, p in enumerate(lens):
    for token, id in enumerate(p.argmax(axis=-1)):
        plt.text(token, row, label(id), ha="center", va="center", fontsize=9)
plt.xticks(range(len(labels)), labels)
plt.yticks(range(len(rows)), rows)
plt.title("the likeliest next token after each token, decoded after each block")
plt.tight_layout()
plt.show()

# %% [markdown]
# Read a column from top to bottom. At first there is little more than a guess from the token
# itself; the later blocks bring in the words before it. How far an early guess is from the final
# one can be measured: the Kullback-Leibler divergence says how many bits are lost by whoever takes
# the one for the other.

# %%
kl = [np.sum(lens[-1] * np.log2(lens[-1] / p), axis=-1).mean() for p in lens]
plt.figure(figsize=(6, 3))
plt.plot(rows[1:], kl[1:], marker="o")  # the embedding alone is far off
plt.ylabel("bits from the final prediction")
plt.xticks(rotation=45)
plt.tight_layout()
plt.show()
print(" ".join(f"{bits:.2f}" for bits in kl))

# %% [markdown]
# ## Drawing a token
#
# The final probabilities leave a choice. *Greedy* decoding always takes the likeliest token.
# Dividing the logits by a *temperature* before the softmax makes likely tokens likelier (below 1)
# or evens them out (above 1), and *top-p* drops the tail: it keeps the likeliest tokens until they
# make up, say, 95 %.

# %%
order = probabilities.argsort()[::-1][:12]
plt.figure(figsize=(9, 3.5))
for i, temperature in enumerate([0.5, 1.0, 1.5]):
    p = softmax(logits[-1] / temperature)
    kept = int((np.sort(p)[::-1].cumsum() < 0.95).sum()) + 1
    plt.bar(
        np.arange(12) + 0.27 * (i - 1),
        p[order],
        width=0.27,
        label=f"T = {temperature}; top-p 95 %: {kept} tokens",
    )
plt.xticks(range(12), [label(id) for id in order])
plt.ylabel("probability")
plt.legend()
plt.tight_layout()
plt.show()

# %% [markdown]
# Does the sampler do what the formula says? We draw the next token 600 times and count. `n`
# completions of one prompt are computed together, and a seed makes each of them repeatable.

# %%
draws = [
    completion.ids[0]
    for seed in range(6)
    for completion in model.generate(text, max_new_tokens=1, n=100, temperature=1.0, top_p=1.0, seed=seed)
]
found = np.bincount(draws, minlength=config.vocab_size) / len(draws)
for id in order[:6]:
    error = np.sqrt(probabilities[id] * (1 - probabilities[id]) / len(draws))
    print(f"{label(id):>8}  formula {probabilities[id]:6.1%}   drawn {found[id]:6.1%} ± {error:.1%}")

# %% [markdown]
# The same prompt, from sober to wild. At temperature 0 the text falls into a loop sooner or later;
# at 1.5 it loses the thread.

# %%
for temperature in [0, 0.8, 1.5]:
    completion = model.generate("Once upon a time", temperature=temperature, max_new_tokens=40, seed=2)
    surprise = -completion.logprobs.mean() / np.log(2)
    print(f"T = {temperature}, {surprise:.1f} bits per token: {completion}\n")
