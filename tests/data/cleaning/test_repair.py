"""Broken characters are mended, right ones stay, and looking only at suspect lines changes nothing of the result."""

from __future__ import annotations

import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seedbed.data.cleaning.repair import Repair
from seedbed.errors import ConfigError


def mend(text, mode="suspect"):
    return Repair(mode).mend(text, Counter())


@pytest.mark.parametrize(
    ("broken", "mended"),
    [
        ("The Mona Lisa doesnâ€™t have eyebrows.", "The Mona Lisa doesn’t have eyebrows."),
        ("schÃ¶n, sÃ³lo, voilÃ  le travail", "schön, sólo, voilà le travail"),
        ("fish &amp; chips", "fish & chips"),
        ("<b>fish &amp; chips</b>", "<b>fish &amp; chips</b>"),
        ("eﬃcient ﬁre", "efficient fire"),
        ("ＬＯＵＤ", "LOUD"),
        ("e\u0301te\u0301", "été"),
        ("one\r\ntwo\rthree", "one\ntwo\nthree"),
        ("\ufeffstart \x1b[31mred\x1b[0m", "start red"),
        ("lone \ud800 half", "lone \ufffd half"),
        ("“Curly” – ‘quotes’ — stay…", "“Curly” – ‘quotes’ — stay…"),
        ("Ça va, naïve Zoë? Да. 木", "Ça va, naïve Zoë? Да. 木"),
    ],
)
@pytest.mark.parametrize("mode", ["suspect", "all"])
def test_what_is_broken_is_mended_and_what_is_right_stays(broken, mended, mode):
    assert mend(broken, mode) == mended


def mojibake(text):
    return text.encode("utf-8").decode("windows-1252", errors="replace")


PIECES = st.sampled_from(
    [
        "plain words. ",
        "\n",
        "\r\n",
        "&amp;",
        "&lt",
        "<b>",
        "é",
        "“",
        "”",
        "—",
        "…",
        "’",
        " ",
        "Ã",
        "Â",
        "€",
        "œ",
        "ﬁ",
        "\x85",
    ]
    + [mojibake(text) for text in ("é", "“so”", "—", "naïve", "木", "Да")]
)


@settings(max_examples=300)
@given(st.lists(PIECES | st.text(max_size=5), max_size=30).map("".join))
def test_suspect_lines_alone_give_what_all_lines_give(text):
    assert mend(text, "suspect") == mend(text, "all")


def test_what_is_not_mojibake_by_itself_is_never_shown_to_ftfy(monkeypatch):
    repair = Repair("suspect")
    monkeypatch.setattr(repair, "_fix", lambda text, options: pytest.fail(f"shown: {text!r}"))
    assert repair.mend("Plain. “Typographic” — that’s all…\r\nR & B\n", Counter()).endswith("\n")


def test_each_mended_text_is_counted_once():
    counts = Counter()
    repair = Repair("suspect")
    for text in ("fine", "schÃ¶n\nschÃ¶n", "fish &amp; chips"):
        repair.mend(text, counts)
    assert counts == {"mended: repair": 2}


def test_a_missing_package_is_named_with_the_line_that_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ftfy", None)
    with pytest.raises(ConfigError, match=r"ftfy.*\n.*pip install.*\[data\]"):
        Repair("all")
