"""GPT-2 on your CPU: write, look inside, and change what it computes.

>>> import hornbook
>>> model = hornbook.Model.from_pretrained("fable")
>>> print(model.generate("Once upon a time", max_new_tokens=40))
"""

from ._hornbook import Completion, Config, Model, Score, Stream, Token, Tokenizer, __version__
from .program import Server, finetune, serve

__all__ = [
    "Completion",
    "Config",
    "Model",
    "Score",
    "Server",
    "Stream",
    "Token",
    "Tokenizer",
    "__version__",
    "finetune",
    "serve",
]
