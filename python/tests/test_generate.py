"""What is generated is what the program generates, to the bit."""

import numpy as np
import pytest

import hornbook

PROMPT = "Once upon a time"
SAMPLED = {"temperature": 0.9, "top_k": 50, "repetition_penalty": 1.1, "presence_penalty": 0.2, "seed": 5}


def choices(program, prompt, **options):
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items() if name != "n"]
    flags += ["-n", options.get("n", 1)]
    return program("generate", prompt, *flags)["choices"]


def assert_equal(completion, choice):
    assert (completion.text, completion.ids) == (choice["text"], choice["token_ids"])
    assert completion.finish_reason == choice["finish_reason"]
    if choice["logprobs"] is not None:
        expected = np.array(choice["logprobs"]["token_logprobs"], np.float32)
        np.testing.assert_array_equal(completion.logprobs, expected)


@pytest.mark.parametrize("precision", [None, "int8"])
def test_completion_equals_program(program, precision):
    model = hornbook.Model.from_pretrained("fable", precision=precision, threads=2)
    completion = model.generate(PROMPT, max_new_tokens=30, logprobs=2, **SAMPLED)
    options = {**SAMPLED, "precision": precision} if precision else SAMPLED
    [choice] = choices(program, PROMPT, max_tokens=30, logprobs=2, **options)
    assert_equal(completion, choice)
    assert completion.logprobs.dtype == np.float32
    top = {model.tokenizer.decode([id]): np.float32(logprob) for id, logprob in completion.top_logprobs[0]}
    expected = {text: np.float32(logprob) for text, logprob in choice["logprobs"]["top_logprobs"][0].items()}
    assert top.items() <= expected.items() and len(top) == 2
    assert (str(completion), completion.seed) == (completion.text, 5)


def test_several_completions_and_prompts_equal_single_ones(model, program):
    three = model.generate(PROMPT, max_new_tokens=12, n=3, seed=1)
    for completion, choice in zip(three, choices(program, PROMPT, max_tokens=12, n=3, seed=1)):
        assert_equal(completion, choice)
    prompts = [PROMPT, "The king", "A fox"]
    together = model.generate(prompts, max_new_tokens=12, seed=1)
    assert [each.ids for each in together] == [
        each.ids for each in model.generate(iter(prompts), max_new_tokens=12, seed=1)
    ]
    alone = [model.generate(prompt, max_new_tokens=12, seed=1) for prompt in prompts]
    assert [each.ids for each in together] == [each.ids for each in alone]
    assert [each.ids for each in model.generate(prompts[:1], max_new_tokens=12, n=3, seed=1)[0]] == [
        each.ids for each in three
    ]


def test_drafts_change_no_bit(model):
    drafting = hornbook.Model.from_pretrained("fable", draft="int4")
    found, expected = (each.generate(PROMPT, max_new_tokens=25, seed=2) for each in (drafting, model))
    assert (found.ids, found.logprobs.tolist()) == (expected.ids, expected.logprobs.tolist())


def test_stream_equals_completion(model):
    completion = model.generate(PROMPT, max_new_tokens=20, seed=9, stop=["!"])
    stream = model.stream(PROMPT, max_new_tokens=20, seed=9, stop="!")
    tokens = list(stream)
    assert "".join(map(str, tokens)) == completion.text
    assert [token.id for token in tokens] == completion.ids
    assert [token.logprob for token in tokens] == completion.logprobs.tolist()
    assert stream.finish_reason == completion.finish_reason
    alone = hornbook.Model.from_pretrained("fable").stream(PROMPT, max_new_tokens=20, seed=9, stop="!")
    assert [token.id for token in alone] == completion.ids, "a stream keeps its model"


def test_prompt_is_text_list_tuple_or_array(model):
    ids = model.tokenizer.encode(PROMPT)
    greedy = [
        model.generate(prompt, max_new_tokens=5, do_sample=False).ids
        for prompt in (PROMPT, ids, tuple(ids), np.array(ids), np.array(ids, np.int32), ids)
    ]
    assert all(each == greedy[0] for each in greedy)
    assert [each.ids for each in model.generate([ids, PROMPT], max_new_tokens=5, temperature=0)] == greedy[:2]


def test_beams_equal_program(model, program):
    found = model.generate(PROMPT, max_new_tokens=12, num_beams=4, n=2, no_repeat_ngram_size=2)
    expected = choices(program, PROMPT, max_tokens=12, beams=4, n=2, no_repeat_ngram_size=2)
    for completion, choice in zip(found, expected):
        assert_equal(completion, choice)
    assert found[0].logprobs is None and found[0].score >= found[1].score


def test_score_and_embedding_equal_program(model, program, tmp_path):
    text = "The king had a daughter, and the fox had none."
    file = tmp_path / "text.txt"
    file.write_text(text)
    report = program("perplexity", file)
    score = model.score(text)
    assert (score.perplexity, score.loss) == (report["perplexity"], report["nats_per_token"])
    assert len(score.logprobs) == len(score.ids) - 1 and score.ids == model.tokenizer.encode(text)
    assert [each.loss for each in model.score([text, PROMPT])] == [score.loss, model.score(PROMPT).loss]
    embeddings = model.embed([text, PROMPT])
    assert embeddings.shape == (2, model.config.n_embd)
    _, cache = model.run_with_cache(text, "ln_final.hook_normalized")
    np.testing.assert_allclose(embeddings[0], cache["ln_final.hook_normalized"].mean(axis=0), atol=1e-5)
    np.testing.assert_array_equal(model.embed(PROMPT), embeddings[1])


def test_tokenizer_round_trips(model):
    tokenizer = model.tokenizer
    ids = tokenizer.encode("Ü<|endoftext|>")
    assert tokenizer.decode(ids) == "Ü<|endoftext|>"
    assert tokenizer.encode("<|endoftext|>", special=True) == tokenizer.eos_token_ids
    assert tokenizer.labels("The king") == ["The", "·king"]
    assert len(tokenizer) == tokenizer.vocab_size == model.config.vocab_size


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"temperature": -1}, "temperature: found -1, expected a non-negative number"),
        ({"top_p": 1.5}, "top_p: found 1.5, expected a number from 0 to 1"),
        ({"top_k": 1.5}, "top_k: found 1.5, expected a non-negative integer"),
        ({"max_new_tokens": -1}, "max_new_tokens: found -1, expected a non-negative integer"),
        ({"n": 0}, "n: found 0, expected an integer from 1 to 128"),
        ({"n": 3, "num_beams": 2}, "n: found 3, expected at most num_beams, 2"),
        ({"stop": 3}, "stop: found 3, expected a text or a list of texts"),
        ({"context": "x"}, "context: found 'x', expected 'stop' or 'shift'"),
        ({"logit_bias": {4096: 1.0}}, "token id 4096 is outside the vocabulary (0 to 4095)"),
    ],
)
def test_value_out_of_range_is_value_error(model, arguments, message):
    with pytest.raises(ValueError) as error:
        model.generate(PROMPT, **arguments)
    assert str(error.value) == message


def test_mistakes_are_named(model):
    with pytest.raises(TypeError, match="'temprature'; did you mean 'temperature'"):
        model.generate(PROMPT, temprature=1)
    with pytest.raises(ValueError, match="the prompt is 600 tokens long, but the model's context is 512"):
        model.generate([1] * 600)
    with pytest.raises(ValueError, match="n: found a value, expected None: a stream is one text"):
        model.stream(PROMPT, n=2)
    with pytest.raises(TypeError, match="expected a text or a sequence of token ids"):
        model.generate(3)
    with pytest.raises(ValueError, match="token id: found -1"):
        model.logits([-1])
    with pytest.raises(ValueError, match="precision: found int9, expected one of f32"):
        hornbook.Model.from_pretrained("fable", precision="int9")
    with pytest.raises(ValueError, match="threads: found 0, expected an integer from 1 to 1024"):
        hornbook.Model.from_pretrained("fable", threads=0)
    with pytest.raises(FileNotFoundError, match="model 'no-such-model' not found"):
        hornbook.Model.from_pretrained("no-such-model")
