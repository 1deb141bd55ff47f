# %% [markdown]
# # Activation patching
#
# *"The king said that"* goes on with *he*, *"The queen said that"* with *she*. Between the noun and
# the pronoun, the model has to carry the fact along: from the token *king*, through its layers, to
# the last token, where the prediction is made. Where is it on the way?
#
# We find out by surgery. The model reads the queen's sentence, but at one place, in one layer at
# one token, its activation is replaced by that of the king's sentence. If the prediction turns to
# *he*, that place holds the fact. This is *activation patching*, or *causal tracing* (Meng et al.
# 2022).

# %%
import matplotlib.pyplot as plt
import numpy as np

import hornbook

model = hornbook.Model.from_pretrained("fable")
clean, corrupted = "Once there was a king, and one day", "Once there was a queen, and one day"
labels = model.tokenizer.labels(corrupted)
[he], [she] = model.tokenizer.encode(" he"), model.tokenizer.encode(" she")


def preference(logits):
    """How much likelier *he* is than *she* as the next token: the difference of the logits."""
    return float(logits[-1, he] - logits[-1, she])


clean_logits, clean_cache = model.run_with_cache(clean)
king, queen = preference(clean_logits), preference(model.logits(corrupted))
print(f"he − she: {king:+.2f} after the king, {queen:+.2f} after the queen")

# %% [markdown]
# The two sentences must have the same number of tokens, so that each token has a counterpart.
# `clean_cache` has every activation of the king's pass by name. The *residual stream* is what each
# layer reads and adds to; after block 2 it is `blocks.2.hook_resid_post`, of shape `[T, n_embd]`.
#
# A patch is three lines. We scale what it does so that 0 is the queen's prediction and 1 the
# king's.

# %%
T = len(labels)
assert len(clean_logits) == T


def patched(name, token):
    def hook(values):
        values[token] = clean_cache[name][token]

    logits = model.run_with_hooks(corrupted, {name: hook})
    return (preference(logits) - queen) / (king - queen)


n_layer = model.config.n_layer
names = ["blocks.0.hook_resid_pre"] + [f"blocks.{layer}.hook_resid_post" for layer in range(n_layer)]
restored = np.array([[patched(name, token) for token in range(T)] for name in names])


def show(values, rows, title):
    plt.figure(figsize=(8, 4))
    plt.imshow(values, vmin=-1, vmax=1, cmap="RdBu", aspect="auto")
    plt.colorbar(label="part of the prediction restored")
    plt.xticks(range(T), labels, rotation=45)
    plt.yticks(range(len(rows)), rows)
    plt.title(title)
    plt.tight_layout()
    plt.show()


show(restored, ["embedding"] + [f"after block {layer}" for layer in range(n_layer)], "the residual stream")

# %% [markdown]
# Two dark places, and a handover between them. In the first layers the fact is at the token
# *queen*, where else; in the last ones at the last token, where it is needed. The corners are
# certain by construction: the whole difference of the inputs is in the one embedding, and the whole
# prediction in the last vector. What the model has decided is where in between it moves.

# %%
source, target = restored[:, labels.index("·queen")], restored[:, -1]
for row, (a, b) in enumerate(zip(source, target)):
    place = "embedding " if row == 0 else f"block {row - 1}   "
    print(f"{place} at queen {a:6.1%}   at the last token {b:6.1%}")
moved = int(np.argmax(target > source)) - 1
print(f"block {moved} is the first after which the last token knows more than the noun does")

# %% [markdown]
# Only attention moves information between tokens, so the handover is done by heads. We patch the
# outputs of attention alone, and then, in the layer that restores most, each head by itself:
# `hook_z` has an axis of heads.

# %%
attn = np.array(
    [[patched(f"blocks.{layer}.hook_attn_out", token) for token in range(T)] for layer in range(n_layer)]
)
show(attn, [f"block {layer}" for layer in range(n_layer)], "the output of attention")


# %%
def patched_head(layer, head):
    name = f"blocks.{layer}.attn.hook_z"

    def hook(z):
        z[-1, head] = clean_cache[name][-1, head]

    return (preference(model.run_with_hooks(corrupted, {name: hook})) - queen) / (king - queen)


heads = np.array(
    [[patched_head(layer, head) for head in range(model.config.n_head)] for layer in range(n_layer)]
)
layer, head = (int(i) for i in np.unravel_index(heads.argmax(), heads.shape))
print(f"L{layer}H{head}, at the last token alone, restores {heads[layer, head]:.0%} of the king")

look = model.attention(corrupted)[layer, head, -1]
for label, weight in zip(labels, look):
    print(f"{label:>8} {weight:5.1%} {'█' * round(40 * weight)}")

# %% [markdown]
# The list shows where that head looks from the last token. The head *moves* what it finds: the
# patch replaced nothing but its output.
#
# Things to try: the MLPs (`hook_mlp_out`) at the noun; another pair of sentences, such as *prince*
# and *princess*; patching in the other direction, the queen into the king's sentence, which need
# not give the same picture.
