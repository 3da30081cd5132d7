"""Texts in other languages go, and a sample tells the language as the whole text does."""

from __future__ import annotations

import sys

import pytest

from seedbed.data.cleaning import language
from seedbed.data.cleaning.dropped import Dropped
from seedbed.data.cleaning.language import Languages, sample
from seedbed.errors import ConfigError

TEXTS = {
    "en": "It was the best of times, it was the worst of times, it was the age of wisdom.",
    "de": "Jemand musste Josef K. verleumdet haben, denn ohne dass er etwas Böses getan hätte, wurde er verhaftet.",
    "fr": "Longtemps, je me suis couché de bonne heure. Parfois, à peine ma bougie éteinte, mes yeux se fermaient.",
    "ru": "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему.",
    "zh": "我们昨天去了北京，参观了故宫和长城。天气很好，大家都很高兴，晚上还吃了烤鸭。",
}


@pytest.mark.parametrize("code", TEXTS)
def test_a_text_stays_only_among_its_language(code):
    assert Languages([code, "en"], 0.7, 1_000).check(TEXTS[code]) == code
    if code != "en":
        with pytest.raises(Dropped, match=r"^language$"):
            Languages(["en"], 0.7, 1_000).check(TEXTS[code])


def test_a_text_nobody_can_tell_is_dropped_as_uncertain():
    languages = Languages(["en", "de"], 0.999, None)
    with pytest.raises(Dropped, match="language"):
        languages.check("Hotel in Wien 1 2 3 the Haus")


def test_a_sample_is_of_the_start_the_middle_and_the_end():
    text = "a" * 1_000 + "b" * 1_000 + "c" * 1_000
    assert sample(text, 300) == "a" * 100 + "\n" + "b" * 100 + "\n" + "c" * 100
    assert sample("short", 300) == "short"


@pytest.mark.parametrize("code", TEXTS)
def test_a_foreign_title_page_does_not_decide(code):
    text = TEXTS["de" if code != "de" else "en"] + "\n" + TEXTS[code] * 60
    assert Languages([code], 0.7, 1_000).check(text) == code


def test_an_unknown_language_is_named_beside_those_that_are_known():
    with pytest.raises(ConfigError, match=r"no model for english, xx\nKnown: .*en"):
        Languages(["en", "xx", "english"], 0.7, None)


def test_a_missing_package_is_named_with_the_line_that_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    with pytest.raises(ConfigError, match=r"py3langid.*\n.*pip install.*\[data\]"):
        language._load.__wrapped__()
