"""Text to tokens and back. Names are brought when first asked for: `import seedbed.tokenizers` costs nothing."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seedbed.tokenizers.config import TokenizerConfig
    from seedbed.tokenizers.tokenizer import Tokenizer
    from seedbed.tokenizers.training import train_tokenizer

__all__ = ["Tokenizer", "TokenizerConfig", "train_tokenizer"]

_HOME = {"Tokenizer": "tokenizer", "TokenizerConfig": "config", "train_tokenizer": "training"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
