# %% [markdown]
# # A head under the microscope
#
# A transformer reads a text token by token. Whatever one token learns from another passes through
# an *attention head*: each head decides, for every token, which earlier tokens to look at, and
# copies something from there. The model `fable` has 6 layers of 4 heads. We look for a head with a
# simple habit, check that it has it, and then take it away to see what the model loses.

# %%
import matplotlib.pyplot as plt
import numpy as np

import hornbook

model = hornbook.Model.from_pretrained("fable")
text = "Once upon a time there was a king who had three sons, and the youngest of them was called Jack."
tokens = model.tokenizer.labels(text)  # · is a space
attention = model.attention(text)
n_layer, n_head, T, _ = attention.shape
print(f"{T} tokens: {' '.join(tokens)}")

# %% [markdown]
# `attention[layer, head]` is a square table: row *i* is how token *i* divides its attention among
# the tokens up to itself, so every row sums to 1 and nothing is right of the diagonal, for the
# future is hidden.
#
# The simplest habit is to look at the token just before. In the table, that is the line below the
# diagonal. Its mean is the head's *previous-token score*: 1 would be a head that does nothing else.

# %%
previous = np.diagonal(attention, offset=-1, axis1=2, axis2=3).mean(axis=-1)  # [n_layer, n_head]
first = attention[:, :, 1:, 0].mean(axis=-1)

figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), constrained_layout=True)
for axis, scores, title in zip(axes, [previous, first], ["on the previous token", "on the first token"]):
    image = axis.imshow(scores, vmin=0, vmax=0.5, cmap="Blues")
    axis.set(title=f"mean attention {title}", xlabel="head", ylabel="layer", xticks=range(n_head))
    figure.colorbar(image)
plt.show()

layer, head = (int(i) for i in np.unravel_index(previous.argmax(), previous.shape))
print(f"L{layer}H{head} looks at the previous token with {previous[layer, head]:.0%} of its attention")

# %% [markdown]
# A token somewhere in the middle has a dozen tokens to choose from, so spreading attention evenly
# would give each of them less than a tenth. This head prefers one place by far. Beside it is a head
# that prefers another: the first token, where heads look that have nothing to do for the moment (an
# *attention sink*).

# %%
sink = tuple(int(i) for i in np.unravel_index(first.argmax(), first.shape))
figure, axes = plt.subplots(1, 2, figsize=(12, 6), constrained_layout=True)
for axis, (a, b) in zip(axes, [(layer, head), sink]):
    axis.imshow(attention[a, b], vmin=0, vmax=1, cmap="Blues")
    axis.set_title(f"L{a}H{b}: the row's token looks at the column's")
    axis.set_xticks(range(T), tokens, rotation=90)
    axis.set_yticks(range(T), tokens)
plt.show()

# %% [markdown]
# ## What is it good for?
#
# A pattern shows where a head looks, not whether it matters. To learn that, we take the head away:
# its output, `hook_z`, of shape `[T, n_head, head_dim]`, becomes zero in the pass (*zero
# ablation*). A hook is a function of the array, which it may change.


# %%
def without(layer, head):
    def hook(z):
        z[:, head] = 0

    return {f"blocks.{layer}.attn.hook_z": hook}


def loss(logits, ids):
    """The mean surprise of each token but the first, in nats: what a model is trained to make small."""
    logits = logits[:-1].astype(np.float64)
    log_sum = np.log(np.exp(logits - logits.max(axis=-1, keepdims=True)).sum(axis=-1)) + logits.max(axis=-1)
    return (log_sum - logits[np.arange(len(ids) - 1), ids[1:]]).mean()


ids = model.tokenizer.encode(text)
whole = loss(model.logits(ids), ids)
harm = np.array(
    [
        [loss(model.run_with_hooks(ids, without(a, b)), ids) - whole for b in range(n_head)]
        for a in range(n_layer)
    ]
)

plt.figure(figsize=(5, 4))
plt.imshow(harm, vmin=-abs(harm).max(), vmax=abs(harm).max(), cmap="RdBu_r")
plt.colorbar(label="loss without the head, minus loss")
plt.gca().set(xlabel="head", ylabel="layer", xticks=range(n_head))
plt.show()
print(f"loss {whole:.2f}; without L{layer}H{head} {whole + harm[layer, head]:.2f}")

# %% [markdown]
# Red heads help with this text, blue ones get in its way; on a single sentence both happen. Which
# tokens does our head help with? The next plot compares the surprise of each.

# %%
before = -model.score(ids).logprobs
logits = model.run_with_hooks(ids, without(layer, head)).astype(np.float64)
shifted = logits - logits.max(axis=-1, keepdims=True)
logprobs = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
after = -logprobs[np.arange(T - 1), ids[1:]]

plt.figure(figsize=(10, 3))
plt.bar(range(1, T), after - before)
plt.xticks(range(1, T), tokens[1:], rotation=90)
plt.ylabel("more surprise\nwithout the head")
plt.tight_layout()
plt.show()

# %% [markdown]
# ## The same story without the head
#
# Hooks work while a text is written, too. The seed is the same, so the two stories differ by the
# head alone: they begin alike and part where it made a difference.

# %%
prompt = "The king called his three sons and said"
print("with it:   ", model.generate(prompt, max_new_tokens=40, seed=3))
print("without it:", model.generate(prompt, max_new_tokens=40, seed=3, hooks=without(layer, head)))

# %% [markdown]
# Things to try: a text of your own; two heads at once (a dict with two names); the mean instead of
# zero, `z[:, head] = z[:, head].mean(axis=0)`, which keeps what the head always says and removes
# what it says about this text.
