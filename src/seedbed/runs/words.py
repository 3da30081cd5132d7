"""How the values of a result are told to people; result.json keeps its keys and all digits."""

from __future__ import annotations

NAMES = {
    "units": "target tokens",
    "val_unknown": "unknown tokens in held-out text",
    "train_unknown": "unknown tokens in training text",
    "unknown_share": "unknown share of the tokens",
    "perplexity": "perplexity a token",
    "val_loss": "validation loss, nats a token",
    "val_bits_per_byte": "validation, bits per byte",
    "skills_exact": "answered exactly",
    "second_turn_exact": "answered exactly in a second turn",
    "second_turns_left_out": "second turns longer than the context, left out",
    "peak_rss_mb": "peak memory, MB",
    "resumed_at": "resumed at step",
}
"""Keys whose own words say too little."""

OF_TEXT = ("pretrain", "finetune", "distill")
"""Stages whose loss is one of tokens."""

OF_ANSWERS = {"units": "counted in the loss", "val_loss": "validation loss"}
"""Of other stages: their losses are of pairs, judgements, answers or rewards."""


def name(key: str, stage: str | None = None) -> str:
    """A key of a result, dotted when it is inside others, as words; of a run of that stage."""
    outer, _, last = key.rpartition(".")
    known = NAMES if stage is None or stage in OF_TEXT else NAMES | OF_ANSWERS
    words = known.get(last, last.replace("_", " "))
    return f"{name(outer)}, {words}" if outer else words


def value(value: str | float) -> str:
    """A value with at most four digits, or all those before the point; whole numbers and texts as they are."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return value
