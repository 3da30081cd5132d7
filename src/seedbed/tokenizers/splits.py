"""How text is split before byte pairs merge: the regular expressions of well-known models, by name.

Merges never cross a split, so a split decides what a word is and how numbers look. Only those are here that llama.cpp
runs too, each under its name there, so that a model can be exported with its tokenizer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from seedbed.errors import ConfigError

if TYPE_CHECKING:
    from tokenizers import pre_tokenizers

Split = Literal["gpt-2", "llama-3", "qwen2", "none"]
Digits = Literal["individual", "groups_of_3", "free"]

GPT_2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_2 = LLAMA_3.replace(r"\p{N}{1,3}", r"\p{N}")

# Splitting at digits first and by GPT-2's expression then, as one expression: white space before a digit ends a part.
SMOLLM = GPT_2.replace(r" ?\p{N}+", r"\p{N}").replace(r"(?!\S)", r"(?![^\s\p{N}])")
NOTHING, DIGITS_ALONE = r"[\s\S]+", r"\p{N}|\P{N}+"

CHOICES: dict[tuple[Split, Digits], str] = {
    ("gpt-2", "individual"): "smollm",
    ("gpt-2", "free"): "gpt-2",
    ("llama-3", "groups_of_3"): "llama-bpe",
    ("qwen2", "individual"): "qwen2",
    ("none", "individual"): "none",
    ("none", "free"): "none",
}
"""What goes together, and what llama.cpp calls it; "none" is unknown there."""


def choose(split: Split | None, digits: Digits | None) -> tuple[Split, Digits]:
    """Fills in what is left out: gpt-2 with single digits, or what the given one goes with. ConfigError for a pair that
    no model uses."""
    for choice in CHOICES:
        if split in (None, choice[0]) and digits in (None, choice[1]):
            return choice
    fitting = dict.fromkeys(of for known, of in CHOICES if split in (None, known))
    raise ConfigError(f"split {split} goes with digits {' or '.join(fitting)}, not with {digits}")


def pre_tokenizer(split: Split, digits: Digits) -> pre_tokenizers.PreTokenizer:
    """The split as a step of tokenizer.json, bytes to characters included."""
    from tokenizers import Regex, pre_tokenizers  # here, for configs read the names above

    expression = {"llama-3": LLAMA_3, "qwen2": QWEN_2}.get(split)
    steps: list[pre_tokenizers.PreTokenizer]
    if expression is not None:
        steps = [pre_tokenizers.Split(Regex(expression), "isolated")]
    else:
        steps = [pre_tokenizers.Digits(individual_digits=True)] if digits == "individual" else []
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split == "gpt-2")
    return pre_tokenizers.Sequence([*steps, last]) if steps else last


def one_expression(steps: list[dict[str, Any]]) -> str | None:
    """The expression whose matches are the parts that these steps of a tokenizer.json make; None where it is unknown.

    Each expression returned matches every character, and ends a match between an ASCII letter and a space (but NOTHING
    and DIGITS_ALONE).
    """
    *before, last = steps
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space"):
        return None
    by_regex = bool(last.get("use_regex", True))
    if not before:
        return GPT_2 if by_regex else NOTHING
    if len(before) > 1:
        return None
    first = before[0]
    if first.get("type") == "Digits" and first.get("individual_digits"):
        return SMOLLM if by_regex else DIGITS_ALONE
    if first.get("type") == "Split" and not by_regex and not first.get("invert") and first["behavior"] == "Isolated":
        expression = first["pattern"].get("Regex")
        return expression if expression in (GPT_2, LLAMA_3, QWEN_2) else None
    return None
