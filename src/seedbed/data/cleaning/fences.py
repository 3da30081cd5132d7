"""Fenced blocks of code, as Markdown has them (CommonMark 0.31, §4.5)."""

from __future__ import annotations

import re
from collections import Counter

FENCE = re.compile(r" {0,3}(`{3,}|~{3,})([^\n]*)")


def strip_code_blocks(text: str, counts: Counter[str]) -> str:
    """The text without fenced blocks; each is counted. A fence that is never closed is left, with all behind it."""
    if "```" not in text and "~~~" not in text:
        return text
    lines = re.split(r"(?<=\n)", text)
    kept: list[str] = []
    block: list[str] = []
    opening = ""
    for line in lines:
        fence = FENCE.match(line)
        if opening:
            block.append(line)
            if fence and fence[1].startswith(opening) and not fence[2].strip():
                counts["stripped: code block"] += 1
                opening, block = "", []
        elif fence and not (fence[1][0] == "`" and "`" in fence[2]):  # ```code``` in a line is no fence
            opening, block = fence[1], [line]
        else:
            kept.append(line)
    return "".join(kept + block)
