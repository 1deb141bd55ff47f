"""Texts for the rows of a Ray dataset, on all nodes of a cluster.

Each node holds the model in an actor. What is written for a row depends on the row and the seed alone, to the
bit: not on the number of nodes, on batches, or on what was computed twice because a node was lost.

>>> import ray, hornbook.ray
>>> prompts = ray.data.read_text("prompts.txt")
>>> texts = hornbook.ray.generate(prompts, column="text", max_new_tokens=60)
>>> texts.write_parquet("texts")
"""

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Optional, Union

from . import Completion, Model
from .program import _Path

if TYPE_CHECKING:
    from ray.data import Dataset

# Prompts of a batch that are computed together: more make a batch no faster.
_CONCURRENCY = 16


class Writer:
    """What an actor holds: a model, and the arguments of ``Model.generate``."""

    def __init__(
        self,
        model: _Path,
        model_arguments: Mapping[str, Any],
        column: str,
        output_column: str,
        seed: Union[int, str],
        arguments: Mapping[str, Any],
    ) -> None:
        self._model = Model.from_pretrained(model, **model_arguments)
        self._column, self._output_column = column, output_column
        self._seed, self._arguments = seed, arguments

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        prompts = [str(prompt) for prompt in batch[self._column]]
        seeds = [self._seed] * len(prompts) if isinstance(self._seed, int) else batch[self._seed]
        with ThreadPoolExecutor(_CONCURRENCY) as pool:
            completions = list(pool.map(self._write, prompts, seeds))
        return {**batch, self._output_column: [completion.text for completion in completions]}

    def _write(self, prompt: str, seed: int) -> Completion:
        if isinstance(self._seed, int):
            seed = _seed_of(prompt, seed)
        completion: Completion = self._model.generate(prompt, seed=int(seed), **self._arguments)
        return completion


def _seed_of(prompt: str, seed: int) -> int:
    """A seed for a prompt, so that different prompts draw different noise, whatever row they are in."""
    digest = hashlib.sha256(f"{seed}\0{prompt}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:6], "little")


def generate(
    dataset: "Dataset",
    *,
    model: _Path = "fable",
    column: str = "prompt",
    output_column: str = "completion",
    seed: Union[int, str] = 0,
    batch_size: int = 64,
    concurrency: Optional[int] = None,
    num_cpus: Optional[float] = None,
    precision: Optional[str] = None,
    adapter: Optional[_Path] = None,
    draft: Optional[_Path] = None,
    **arguments: Any,
) -> "Dataset":
    """Adds a column with what follows each row's prompt to a Ray dataset. It is computed when it is used.

    ``model``, ``precision``, ``adapter`` and ``draft`` are those of ``Model.from_pretrained``, on every node;
    further arguments are those of ``Model.generate``, such as ``max_new_tokens=60``.

    ``num_cpus`` is the number of cores of an actor, and of the model's threads; by default, all that the
    largest node has. ``concurrency`` is the number of actors, by default as many as the cluster has room for.
    ``seed`` is a number, or the name of a column with one for each row; with a number, rows with the same
    prompt get the same text.
    """
    import ray

    nodes = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
    cpus = max(1, int(num_cpus or max(nodes, default=1)))
    actors = concurrency or max(1, sum(int(n // cpus) for n in nodes))
    model_arguments = {"precision": precision, "adapter": adapter, "draft": draft, "threads": cpus}
    return dataset.map_batches(
        Writer,
        fn_constructor_args=(model, model_arguments, column, output_column, seed, arguments),
        batch_size=batch_size,
        batch_format="numpy",
        concurrency=actors,
        num_cpus=cpus,
    )
