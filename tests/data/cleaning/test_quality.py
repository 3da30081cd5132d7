"""Each rule of Gopher and of C4 drops what it was made for, at its limit, and prose passes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from seedbed.data.cleaning.dropped import Dropped
from seedbed.data.cleaning.quality import check_gopher, keep_c4_lines
from seedbed.data.cleaning.repetition import check_repetition

NO_HASHES = np.zeros(0, np.uint64)
PROSE = "The cat sat with the dog. It was happy to have a friend! Was that all there is to know of them?\n" * 5


def test_prose_passes():
    check_gopher(PROSE, english=True)
    assert keep_c4_lines(PROSE, Counter()) == PROSE


@pytest.mark.parametrize(
    ("rule", "passes", "drops"),
    [
        ("word count", "the be cats " * 17, "the be cats " * 16 + "the"),
        ("word count", "the of cats " * 33_333, "the of cats " * 33_334),
        ("word length", "the of cats " * 25, "the of cat " * 25),
        ("word length", "the of abcdefghijklm " + "abcdefghij " * 50, "the of " + "abcdefghijk " * 50),
        ("symbols", "the to letters " * 40 + "# " * 13, "the to letters " * 40 + "# " * 14),
        ("symbols", "the to letters " * 40 + "so... " * 13 + "end", "the to letters " * 40 + "so… " * 14 + "end"),
        ("bullets", "- the cats jumped of\n" * 18 + "the cats of\n" * 2, "•the cats of\n" * 19 + "the cats of\n"),
        (
            "ellipses",
            "the cats of many houses\n" * 14 + "the end...\n" * 6,
            "the cats of many houses\n" * 14 + "the end…\n" * 7,
        ),
        ("words without letters", "the to Ab12345 " * 16 + "123 " * 12, "the to Ab12345 " * 16 + "123 " * 13),
        ("stop words", "the kid and cat " * 20, "the kid hat cat " * 20),
    ],
)
def test_gopher_drops_at_its_limits(rule, passes, drops):
    check_gopher(passes, english=True)
    with pytest.raises(Dropped, match=f"^gopher {rule}$"):
        check_gopher(drops, english=True)


def test_stop_words_are_asked_of_english_only():
    german = "Die Katze saß beim Hund und freute sich sehr über einen guten Freund im Haus. " * 5
    check_gopher(german, english=False)
    with pytest.raises(Dropped, match="stop words"):
        check_gopher(german, english=True)


@pytest.mark.parametrize(
    "line",
    [
        "A heading without an end",
        "One two three four.",
        "This sentence was never really finished...",
        "Please enable JavaScript to see this page.",
        "Read our Privacy Policy before you go on.",
        "This site uses cookies, like all of them.",
        f"A word of {'x' * 1_001} is no word at all.",
    ],
)
def test_c4_takes_out_lines_that_are_no_sentences(line):
    counts = Counter()
    assert keep_c4_lines(f"{PROSE}\n{line}\n\n{PROSE}", counts) == f"{PROSE}\n{PROSE}".rstrip("\n")
    assert counts == {"stripped: c4 line": 1}


@pytest.mark.parametrize(
    "line",
    ['He said: "That is a fine line."', "“That is a fine line too,” he said, “sir.”", "これ は 一 つ の 文 です。"],
)
def test_c4_keeps_lines_that_end_as_sentences_do(line):
    assert line in keep_c4_lines(PROSE + line, Counter())


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("lorem ipsum", PROSE + "Lorem ipsum dolor sit amet"),
        ("curly bracket", PROSE + "if (x) {"),
        ("too few sentences", "This is the first sentence. And this one is the second and the last."),
        ("too few sentences", "Nothing\nhere\nis a sentence\nat all"),
    ],
)
def test_c4_drops_pages_that_are_no_prose(reason, text):
    with pytest.raises(Dropped, match=f"^c4 {reason}$"):
        keep_c4_lines(text, Counter())


@pytest.mark.parametrize("sign", ["\u2028", "\x85", "\x0c", "\x1c", "\v"])
def test_lines_are_what_line_feeds_part(sign):
    line = f"This one line holds a sign{sign} that other programs take for its end."
    assert keep_c4_lines(PROSE + line, Counter()) == PROSE + line
    check_gopher(PROSE + f"so it is…{sign}" * 10 + "so it is not.\n", english=True)
    check_repetition(f"a b c{sign}a b c{sign}a b c and so on, with no word that was here before it\n", [], NO_HASHES)


def test_c4_takes_carriage_returns_for_part_of_the_line_end():
    text = f"{PROSE}A heading\n{PROSE}"
    assert keep_c4_lines(text.replace("\n", "\r\n"), Counter()) == keep_c4_lines(text, Counter())


def test_c4_removes_marks_of_citation():
    assert "[" not in keep_c4_lines(
        PROSE.replace("dog.", "dog[1].[citation needed]").replace("cat", "cat[edit]"), Counter()
    )
