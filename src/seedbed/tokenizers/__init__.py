"""Text to tokens and back. Names are brought when first asked for: `import seedbed.tokenizers` costs nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seedbed.tokenizers.tokenizer import Tokenizer

__all__ = ["Tokenizer"]


def __getattr__(name: str) -> Any:
    if name != "Tokenizer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from seedbed.tokenizers import tokenizer

    return tokenizer.Tokenizer
