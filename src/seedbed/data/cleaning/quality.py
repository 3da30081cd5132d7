"""Heuristics of what is prose: Gopher's and C4's.

Gopher: Rae et al. 2021, arXiv:2112.11446, §A.1.1, as it reads; words are what white space parts. datatrove counts the
tokens of a linguistic tokenizer instead, and those of punctuation alone are no words to it.

C4: Raffel et al. 2020, JMLR 21(140), §2.2, with the numbers of the code that made it (c4_utils.py of TensorFlow
Datasets): lines of 5 words, pages of 3 sentences; datatrove takes 3 and 5. As there, marks such as [1] and [edit] go,
and lines with a word of more than 1,000 characters. As the paper has it and datatrove has not, a bracket or "lorem
ipsum" in any line drops the page. Blank lines stay. Left out are the list of bad words, and repeated sentences, which
deduplication finds.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import islice

from seedbed.data.cleaning.dropped import Dropped

STOP_WORDS = frozenset({"the", "be", "to", "of", "and", "that", "have", "with"})
BULLETS = ("•", "- ", "* ", "‣", "◦", "▪")
ELLIPSES = ("...", "…")
WORD_WITH_LETTER = re.compile(r"[^\W\d_]\S*")
"""From the first letter of a word to its end: one match for each word that has a letter."""

TERMINAL = (".", "!", "?", '"', "'", "”", "’", "»", "。", "！", "？", "」", "』", "।", "؟", "۔")
SENTENCE_END = re.compile(r"[.!?。！？।؟۔][\"'”’»)\]」』]*(?=\s|$)|[。！？]")
CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")
NOTICES = (
    "javascript",
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)
LONGEST_WORD = 1_000


def check_gopher(text: str, english: bool) -> None:
    """Raises Dropped for what breaks a rule. The stop words are English, so that rule is only for English texts."""
    words = text.split()
    count = len(words)
    if not 50 <= count <= 100_000:
        raise Dropped("gopher word count")
    if not 3 <= sum(map(len, words)) / count <= 10:
        raise Dropped("gopher word length")
    if max(text.count("#"), text.count("...") + text.count("…")) > 0.1 * count:
        raise Dropped("gopher symbols")
    lines = [line for line in map(str.strip, text.split("\n")) if line]
    if sum(line.startswith(BULLETS) for line in lines) > 0.9 * len(lines):
        raise Dropped("gopher bullets")
    if sum(line.endswith(ELLIPSES) for line in lines) > 0.3 * len(lines):
        raise Dropped("gopher ellipses")
    # Most words are all lower case, which is told faster than whether one letter is among them.
    if sum(map(str.islower, words)) < 0.8 * count and len(WORD_WITH_LETTER.findall(text)) < 0.8 * count:
        raise Dropped("gopher words without letters")
    if english and len(STOP_WORDS.intersection(words)) < 2:
        raise Dropped("gopher stop words")


def keep_c4_lines(text: str, counts: Counter[str]) -> str:
    """The lines of a page that are sentences; each other is counted. Raises Dropped for a page that is no prose."""
    lowered = text.lower()
    if "lorem ipsum" in lowered:
        raise Dropped("c4 lorem ipsum")
    if "{" in text:
        raise Dropped("c4 curly bracket")
    if "[" in text:
        text = CITATION.sub("", text)
    notices = [notice for notice in NOTICES if notice in lowered]
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    kept = [line for line in lines if not line or line.isspace() or _is_prose(line.strip(), notices)]
    if len(kept) < len(lines):
        counts["stripped: c4 line"] += len(lines) - len(kept)
        text = re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip("\n")  # blank lines around those that went
    if len(list(islice(SENTENCE_END.finditer(text), 3))) < 3:
        raise Dropped("c4 too few sentences")
    return text


def _is_prose(line: str, notices: list[str]) -> bool:
    return (
        line.endswith(TERMINAL)
        and not line.endswith("...")
        and len(line.split(maxsplit=4)) == 5
        and (len(line) <= LONGEST_WORD or max(map(len, line.split())) <= LONGEST_WORD)
        and not (notices and any(notice in line.lower() for notice in notices))
    )
