"""Which way attention is computed: by device and mask, or as asked for."""

from __future__ import annotations

import functools
import logging

from seedbed.model.attention_paths.flash import FlashAttention
from seedbed.model.attention_paths.flex import FlexAttention
from seedbed.model.attention_paths.path import Attend, Heads, Path
from seedbed.model.attention_paths.reference import ReferenceAttention
from seedbed.model.attention_paths.sdpa import ScaledDotProductAttention
from seedbed.model.masks import AttentionMask

logger = logging.getLogger(__name__)

PATHS: dict[str, Path] = {
    "reference": ReferenceAttention,
    "sdpa": ScaledDotProductAttention,
    "flex": FlexAttention,
    "flash": FlashAttention,
}
"""Every way, by the name that `train.attention` gives it."""


def choose(asked: str, mask: AttentionMask, heads: Heads) -> Attend:
    """What computes attention under `mask`. `asked`: a name of PATHS, which is taken when it can be, or "auto".

    What cannot be taken is said once, with what is taken in its place: SDPA can do everything.
    """
    wanted = _fastest(mask) if asked == "auto" else (asked, "sdpa")
    obstacles = {name: PATHS[name].obstacle(mask, heads) for name in wanted}
    taken = next(name for name in wanted if obstacles[name] is None)
    for name in wanted[: wanted.index(taken)]:
        _announce(f"{obstacles[name]}: {taken} is used", logging.INFO if asked == "auto" else logging.WARNING)
    return PATHS[taken](mask, heads)


def _fastest(mask: AttentionMask) -> tuple[str, ...]:
    """Paths in the order in which they are tried. A whole row needs no mask, and SDPA has flash-attn's kernel for it;
    for anything else it would keep a mask as large as the scores, which only a CPU is no slower with."""
    if mask.is_plain or mask.slots_BT is not None or mask.device.type != "cuda":
        return ("sdpa",)
    return ("flash", "flex", "sdpa")


@functools.cache
def _announce(message: str, level: int) -> None:
    """Once in a process, not in every step."""
    logger.log(level, message)
