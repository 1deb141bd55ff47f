"""What is seen and changed inside the model is what the program sees and changes."""

import numpy as np
import pytest

TEXT = "The cat sat on the mat because it"


def zero_head(head):
    def hook(z):
        z[:, head] = 0

    return hook


def test_attention_equals_inspect(model, program):
    attention = model.attention(TEXT)
    n = len(model.tokenizer.encode(TEXT))
    assert attention.shape == (6, 4, n, n) and attention.dtype == np.float32
    assert attention.flags.owndata or attention.base is not None
    for layer, head in [(0, 1), (3, 2)]:
        shown = program("inspect", TEXT, "--layer", layer, "--head", head)["attention"]["pattern"]
        for i, row in enumerate(shown):
            np.testing.assert_array_equal(attention[layer, head, i, : len(row)], np.array(row, np.float32))


def test_logits_give_the_programs_logprobs(model, program):
    logits = model.logits(TEXT)
    assert logits.shape == (len(model.tokenizer.encode(TEXT)), model.config.vocab_size)
    last = logits[-1].astype(np.float64)
    logprobs = last - last.max() - np.log(np.exp(last - last.max()).sum())
    choice = program("generate", TEXT, "--temperature=0", "--max-tokens=1", "--logprobs=5")["choices"][0]
    assert last.argmax() == choice["token_ids"][0]
    assert np.float32(logprobs.max()) == np.float32(choice["logprobs"]["token_logprobs"][0])


def test_cache_has_every_site(model):
    logits, cache = model.run_with_cache(TEXT)
    assert list(cache) == model.hook_names and len(cache) == 4 + 6 * 14
    np.testing.assert_array_equal(logits, model.logits(TEXT))
    np.testing.assert_array_equal(logits, cache["logits"])
    attention = model.attention(TEXT)
    n, config = len(logits), model.config
    for layer in range(config.n_layer):
        np.testing.assert_array_equal(cache[f"blocks.{layer}.attn.hook_pattern"], attention[layer])
        assert cache[f"blocks.{layer}.attn.hook_z"].shape == (n, config.n_head, 64)
        assert cache[f"blocks.{layer}.mlp.hook_post"].shape == (n, config.n_inner)
        block = f"blocks.{layer}."
        middle = cache[block + "hook_resid_pre"] + cache[block + "hook_attn_out"]
        np.testing.assert_array_equal(middle, cache[block + "hook_resid_mid"])
    _, some = model.run_with_cache(TEXT, ["hook_embed", "blocks.1.attn.hook_q"])
    assert list(some) == ["hook_embed", "blocks.1.attn.hook_q"]


def test_hook_that_changes_nothing_changes_no_bit(model):
    hooks = {name: (lambda values: None) for name in model.hook_names}
    np.testing.assert_array_equal(model.run_with_hooks(TEXT, hooks), model.logits(TEXT))


def test_ablation_equals_program(model, program):
    hooks = {"blocks.3.attn.hook_z": zero_head(1)}
    completion = model.generate(TEXT, max_new_tokens=20, seed=3, hooks=hooks)
    report = program("generate", TEXT, "--max-tokens=20", "--seed=3", "--ablate=L3H1", "--logprobs=0")
    [choice] = report["choices"]
    assert completion.ids == choice["token_ids"]
    expected = np.array(choice["logprobs"]["token_logprobs"], np.float32)
    np.testing.assert_array_equal(completion.logprobs, expected)
    two = model.generate(TEXT, max_new_tokens=20, seed=3, n=2, hooks=hooks)
    assert two[0].ids == completion.ids
    changed = model.run_with_hooks(TEXT, hooks)
    assert not np.array_equal(changed, model.logits(TEXT))


def test_patching_with_own_activations_restores_the_text(model):
    clean = "The queen said that she"
    logits, cache = model.run_with_cache(clean, "blocks.2.hook_resid_post")
    patched = model.run_with_hooks(
        "The king said that he", {"blocks.2.hook_resid_post": lambda _: cache["blocks.2.hook_resid_post"]}
    )
    np.testing.assert_array_equal(patched, logits)


def test_hook_may_return_other_dtypes_and_layouts(model):
    hooks = {"blocks.0.hook_mlp_out": lambda values: values.astype(np.float64).T.copy().T}
    np.testing.assert_array_equal(model.run_with_hooks(TEXT, hooks), model.logits(TEXT))


def test_exceptions_of_hooks_are_raised(model):
    def fail(values):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        model.run_with_hooks(TEXT, {"hook_embed": fail})
    with pytest.raises(KeyError, match="mine"):
        model.generate(TEXT, hooks={"hook_embed": fail})
    with pytest.raises(ValueError, match=r"hook_embed: found an array of shape \[1\], expected one of shape"):
        model.run_with_hooks(TEXT, {"hook_embed": lambda values: np.zeros(1)})
    with pytest.raises(ValueError, match="read-only"):
        model.run_with_hooks(TEXT, {"blocks.0.attn.hook_pattern": lambda values: values * 2})
    with pytest.raises(ValueError, match="unknown site 'hook_embedding', expected one of hook_embed"):
        model.run_with_cache(TEXT, "hook_embedding")
    with pytest.raises(ValueError, match="found block 6, expected 0 to 5"):
        model.run_with_hooks(TEXT, {"blocks.6.hook_resid_pre": fail})


def test_hook_may_use_the_model(model):
    inner = []
    model.run_with_hooks(TEXT, {"hook_embed": lambda values: inner.append(model.logits(TEXT))})
    np.testing.assert_array_equal(inner[0], model.logits(TEXT))
