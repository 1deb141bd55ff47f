"""Types of the extension module. T is the number of tokens of a text."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from typing import Any, Literal, Optional, TypedDict, Union, final, overload

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Unpack

FloatArray = NDArray[np.float32]
Ids = Union[Sequence[int], NDArray[np.integer[Any]]]
Prompt = Union[str, Ids]
Prompts = Union[list[str], list[list[int]]]
Hook = Callable[[FloatArray], Optional[FloatArray]]
Precision = Literal["f32", "f16", "bf16", "bf16-dot", "int8", "int4"]

__version__: str

class Arguments(TypedDict, total=False):
    """The keyword arguments of ``generate`` and ``stream``; None is the default."""

    max_new_tokens: Optional[int]
    min_new_tokens: Optional[int]
    do_sample: Optional[bool]
    temperature: Optional[float]
    top_k: Optional[int]
    top_p: Optional[float]
    min_p: Optional[float]
    typical_p: Optional[float]
    seed: Optional[int]
    stop: Union[str, Sequence[str], None]
    stop_token_ids: Optional[Sequence[int]]
    logprobs: Optional[int]
    """The number of most likely tokens reported with every token, in ``top_logprobs``."""
    repetition_penalty: Optional[float]
    presence_penalty: Optional[float]
    frequency_penalty: Optional[float]
    no_repeat_ngram_size: Optional[int]
    logit_bias: Optional[Mapping[int, float]]
    bad_words_ids: Optional[Sequence[Sequence[int]]]
    allowed_token_ids: Optional[Sequence[int]]
    num_beams: Optional[int]
    length_penalty: Optional[float]
    early_stopping: Union[bool, Literal["never"], None]
    context: Optional[Literal["stop", "shift"]]
    """What happens at the end of the context: the text ends, or goes on from its last half."""
    hooks: Optional[Mapping[str, Hook]]
    """Functions that change the passes, as in ``run_with_hooks``."""

@final
class Config:
    """A model's configuration, with the names of ``config.json``."""

    n_layer: int
    n_head: int
    n_embd: int
    n_inner: int
    n_positions: int
    vocab_size: int
    layer_norm_epsilon: float
    tie_word_embeddings: bool

@final
class Tokenizer:
    """A model's tokenizer: text to token ids and back."""

    vocab_size: int
    eos_token: str
    eos_token_ids: list[int]

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """A text's token ids. With ``special``, names of special tokens in the text become those tokens."""

    def decode(self, ids: Ids) -> str:
        """The text of token ids; invalid UTF-8 becomes U+FFFD."""

    def labels(self, prompt: Prompt) -> list[str]:
        """The text of each token, with ``·`` for a space and ``↵`` for a line feed: labels for plots."""

    def __len__(self) -> int: ...

@final
class Completion:
    """A generated text. ``str()`` of it is the text."""

    text: str
    ids: list[int]
    """Its token ids, including an end-of-text token."""
    logprobs: Optional[FloatArray]
    """The logprob of each token in the model's own distribution, ``[len(ids)]``; None with beams."""
    top_logprobs: list[list[tuple[int, float]]]
    """For each token the ``logprobs=N`` most likely ids with their logprobs, best first."""
    finish_reason: Literal["stop", "length"]
    score: Optional[float]
    """With beams, the sum of the logprobs divided by ``len(ids) ** length_penalty``."""
    seed: int
    """The seed that writes this text again."""

@final
class Token:
    """A generated token. ``str()`` of it is its text."""

    id: int
    text: str
    """The text that is final with it: whole characters, so that it may be empty."""
    logprob: float
    top_logprobs: list[tuple[int, float]]

@final
class Stream(Iterator[Token]):
    """A text that is being generated, token by token. Dropping it ends the computation."""

    finish_reason: Optional[Literal["stop", "length"]]
    seed: int

    def __iter__(self) -> "Stream": ...
    def __next__(self) -> Token: ...

@final
class Score:
    """How well a model predicts a text."""

    ids: list[int]
    logprobs: FloatArray
    """The logprob of each token but the first, given those before it, ``[T - 1]``."""
    loss: float
    """The mean of ``-logprobs``, in nats."""
    perplexity: float
    """``exp(loss)``"""

@final
class Model:
    """A GPT-2 model. Several threads may use it at the same time; a fork of the process may not."""

    name: str
    config: Config
    tokenizer: Tokenizer
    threads: int
    hook_names: list[str]
    """The names of all sites of a pass, in its order."""

    @staticmethod
    def from_pretrained(
        model: Union[str, PathLike[str]] = "fable",
        *,
        precision: Optional[Precision] = None,
        threads: Optional[int] = None,
        adapter: Union[str, PathLike[str], None] = None,
        draft: Union[Literal["int8", "int4"], str, PathLike[str], None] = None,
    ) -> "Model":
        """Opens ``"fable"``, which is part of the package, a folder, or a name in the Hugging Face cache.

        ``precision`` converts the weights; by default they are as stored. ``threads`` is one per core by
        default. ``adapter`` is the folder of a LoRA adapter. ``draft`` drafts texts with a
        quantized copy of the model: the same bits, faster. A smaller model with the same vocabulary, or a
        folder that ``hornbook quantize`` wrote, can draft too.
        """

    @overload
    def generate(self, prompt: Prompt, *, n: None = None, **arguments: Unpack[Arguments]) -> Completion: ...
    @overload
    def generate(self, prompt: Prompt, *, n: int, **arguments: Unpack[Arguments]) -> list[Completion]: ...
    @overload
    def generate(
        self, prompt: Prompts, *, n: None = None, **arguments: Unpack[Arguments]
    ) -> list[Completion]: ...
    @overload
    def generate(self, prompt: Prompts, *, n: int, **arguments: Unpack[Arguments]) -> list[list[Completion]]:
        """Writes what follows a prompt.

        Returns a ``Completion``; with ``n``, a list of as many; for a list of prompts, a list of such
        results, computed together. What is not given is the model's default: temperature 0.8, top_p 0.95,
        at most 200 tokens, a new seed.
        """

    def stream(self, prompt: Prompt, **arguments: Unpack[Arguments]) -> Stream:
        """Writes what follows a prompt, token by token, with the arguments of ``generate``."""

    def logits(self, ids: Prompt) -> FloatArray:
        """The logits after each token, ``[T, vocab_size]``."""

    @overload
    def score(self, text: Prompt) -> Score: ...
    @overload
    def score(self, text: Prompts) -> list[Score]:
        """How well the model predicts a text, or each of a list."""

    def embed(self, texts: Union[Prompt, Prompts]) -> FloatArray:
        """The mean of a text's final hidden states, ``[n_embd]``; of a list, ``[len(texts), n_embd]``."""

    def attention(self, ids: Prompt) -> FloatArray:
        """The attention weights, ``[n_layer, n_head, T, T]``: row i of a head is what token i attends to."""

    def run_with_cache(
        self, ids: Prompt, names: Union[str, Sequence[str], None] = None
    ) -> tuple[FloatArray, dict[str, FloatArray]]:
        """The logits, ``[T, vocab_size]``, and activations by TransformerLens's names: ``names``, or all.

        Shapes: ``[T, n_head, head_dim]`` (``hook_q``, ``hook_k``, ``hook_v``, ``hook_z``), ``[n_head, T, T]``
        (``hook_pattern``), ``[T, n_inner]`` (``mlp.hook_pre``, ``mlp.hook_post``), ``[T, vocab_size]``
        (``logits``), else ``[T, n_embd]``.
        """

    def run_with_hooks(self, ids: Prompt, hooks: Mapping[str, Hook]) -> FloatArray:
        """The logits, ``[T, vocab_size]``, of a pass that functions change.

        A function gets the activations of its name, of the shapes of ``run_with_cache``, and changes them in
        place or returns others. ``hook_pattern`` can be read only.
        """

    def finetune(
        self,
        data: Union[str, PathLike[str], Sequence[Union[str, PathLike[str]]]],
        output: Union[str, PathLike[str]],
        **options: Any,
    ) -> "Model":
        """Trains this model further on texts of your own, and returns the result, which is in ``output``.

        ``hornbook.finetune`` with ``model`` set to this model's name. An adapter that it was opened with is
        not part of it.
        """

def run_command_line(arguments: Sequence[str]) -> int:
    """Runs a command line of the program, its name first, and returns the exit code."""
