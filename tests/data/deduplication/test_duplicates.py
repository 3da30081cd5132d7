"""Which documents and lines go: held against brute force, in any order, with any memory."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections import Counter

import numpy as np
import pytest

from seedbed.data.config import DeduplicationConfig
from seedbed.data.deduplication import duplicates
from seedbed.data.deduplication.duplicates import NEIGHBOURS, jaccard
from seedbed.data.deduplication.signer import Signer
from tests.data.deduplication.texts import edited, reasons, results, search, shingle_set, similarity, some_words

EXACT = DeduplicationConfig()
NEAR = DeduplicationConfig(near=0.8)
ALL = DeduplicationConfig(near=0.8, lines=True, paragraphs=True)
TINY = 64 << 10


def planted_texts(seed: int, originals: int = 120) -> list[str]:
    """Originals of 30 to 400 words, and for half of them one to three copies with 0 to 8 % of the words replaced."""
    chance = random.Random(seed)
    texts = []
    for number in range(originals):
        tokens = some_words(chance, chance.randint(30, 400))
        texts.append(" ".join(tokens))
        for _ in range(number % 2 * chance.randint(1, 3)):
            texts.append(" ".join(edited(chance, tokens, int(chance.uniform(0, 0.08) * len(tokens)))))
    chance.shuffle(texts)
    return texts


def groups_by_hand(texts: list[str], linked) -> list[set[int]]:
    groups = [{number} for number in range(len(texts))]
    for left, right in itertools.combinations(range(len(texts)), 2):
        if groups[left] is not groups[right] and linked(texts[left], texts[right]):
            joined = groups[left] | groups[right]
            for member in joined:
                groups[member] = joined
    return groups


def best(texts: list[str], group: set[int]) -> int:
    return min(group, key=lambda i: (-len(texts[i]), hashlib.sha256(texts[i].encode()).digest(), i))


def test_near_duplicates_are_those_of_brute_force(tmp_path):
    planted = dropped_rightly = kept_rightly = dropped_wrongly = 0
    for seed in range(3):
        texts = planted_texts(seed)
        sets = {text: shingle_set(text, 5) for text in texts}
        groups = groups_by_hand(texts, lambda a, b, sets=sets: similarity(sets[a], sets[b]) >= 0.8)
        found = reasons(texts, search(texts, NEAR, tmp_path / str(seed)))
        for number, group in enumerate(groups):
            repeat = best(texts, group) != number
            planted += repeat
            dropped_rightly += repeat and found[number] is not None
            kept_rightly += not repeat and found[number] is None
            dropped_wrongly += not repeat and found[number] is not None
    assert planted > 100
    assert dropped_rightly >= 0.95 * planted
    assert dropped_wrongly <= 0.01 * (dropped_wrongly + kept_rightly)


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.9, 1.0])
def test_a_pair_is_a_duplicate_exactly_from_the_threshold_on(tmp_path, threshold):
    """The shorter text is a part of the longer one: 10·threshold of 10 words, then of 11."""
    config = DeduplicationConfig(near=threshold, shingle=1, permutations=1024)
    tokens = [f"w{number}" for number in range(10)]
    part = " ".join(reversed(tokens[: round(10 * threshold)]))
    at, below = [" ".join(tokens) + "!", part], [" ".join(tokens) + " more", part]
    assert reasons(at, search(at, config, tmp_path / "at")) == [None, "near"]
    assert reasons(below, search(below, config, tmp_path / "below")) == [None, None]


@pytest.mark.parametrize("config", [EXACT, NEAR, ALL, DeduplicationConfig(exact=False, near=0.6, lines=True)])
def test_order_units_and_memory_change_nothing(tmp_path, config):
    chance = random.Random(5)
    texts = [text.replace(" ", "\n" * (i % 2) + " ", 3) for i, text in enumerate(planted_texts(5, 80))]
    furniture = ["all rights are reserved", "Next page of this:", "one two three four"]
    for number in chance.sample(range(len(texts)), 40):
        texts[number] += f"\n\n{chance.choice(furniture)}\n{chance.choice(furniture)}"
    texts += [text.upper() for text in texts[:20]]
    expected = Counter(zip(texts, results(texts, search(texts, config, tmp_path / "first")), strict=True))
    counts = None
    for unit, memory in ((1000, 256 << 20), (7, TINY), (50, 1)):
        chance.shuffle(texts)
        verdicts = search(texts, config, tmp_path / str(unit), unit, memory)
        assert Counter(zip(texts, results(texts, verdicts, unit), strict=True)) == expected
        counts = counts or verdicts.counts
        assert verdicts.counts == counts
        assert {path.name for path in verdicts.folder.iterdir()} == {"drops", "cuts"}
    assert counts["exact"] + counts["near"] == sum(n for (_, (reason, _)), n in expected.items() if reason)


def test_the_longest_text_stays_then_that_of_the_smallest_hash(tmp_path):
    texts = ["a b c", "A b c", "a, b, c!", "a; b; c?", "other"]
    found = reasons(texts, search(texts, EXACT, tmp_path / "units", unit=2), unit=2)
    stays = best(texts, {2, 3})
    assert found == [None if number in (stays, 4) else "exact" for number in range(5)]


def test_equal_texts_differ_in_case_form_signs_and_spaces_only(tmp_path):
    texts = ["Ｆｕｌｌ “width” ﬁne", 'full\n\n"WIDTH", fine…', "full width", "fullwidth fine"]
    assert reasons(texts, search(texts, EXACT, tmp_path / "units")).count("exact") == 1


def test_texts_without_a_word_are_equal_only_when_their_signs_are(tmp_path):
    texts = ["", "  ", "!!!", "!!!\n", "???", "🌱", "w"]
    found = dict(zip(texts, reasons(texts, search(texts, NEAR, tmp_path / "units")), strict=True))
    assert found == {"": "exact", "  ": None, "!!!": "exact", "!!!\n": None, "???": None, "🌱": None, "w": None}


def test_texts_shorter_than_a_shingle_are_one_shingle(tmp_path):
    config = DeduplicationConfig(exact=False, near=0.8)
    texts = ["one", "One.", "one two", "two one", "ONE-TWO!", ""]
    assert reasons(texts, search(texts, config, tmp_path / "units")) == ["near", None, "near", None, None, None]


def test_clusters_are_transitive(tmp_path):
    """Each text is like the next, the first is nothing like the last; the longest of all stays."""
    tokens = [f"w{number}" for number in range(400)]
    texts = [" ".join(tokens[start : start + 200]) for start in range(0, 200, 10)]
    assert similarity(shingle_set(texts[0], 5), shingle_set(texts[-1], 5)) < 0.1
    verdicts = search(texts, NEAR, tmp_path / "units")
    assert reasons(texts, verdicts).count(None) == 1
    assert (verdicts.counts["near"], verdicts.counts["largest_near"]) == (19, 20)


def test_a_million_equal_documents_leave_one(tmp_path):
    signatures = Signer(NEAR).sign(["the same few words in each"] * 1000)
    signatures.save(tmp_path / "unit")
    verdicts = duplicates.find_duplicates([tmp_path / "unit"] * 1000, NEAR, tmp_path / "scratch", memory=16 << 20)
    assert (verdicts.counts["exact"], verdicts.counts["largest_exact"]) == (999_999, 1_000_000)
    assert [verdicts.of(unit).drops.tolist().count(0) for unit in (0, 1, 999)] == [1, 0, 0]


def test_boilerplate_is_compared_in_time_proportional_to_its_size(tmp_path, monkeypatch):
    """3,000 pages that differ in three words share all their bands; 4.5 million pairs are not compared."""
    compared = []
    monkeypatch.setattr(duplicates, "jaccard", lambda a, b: compared.append(1) or jaccard(a, b))
    page = some_words(random.Random(0), 300)
    texts = [" ".join([*page, f"number{i}", f"of{i}"]) for i in range(3000)]
    verdicts = search(texts, NEAR, tmp_path / "units", unit=500, memory=TINY)
    assert verdicts.counts["near"] == 2999
    assert len(compared) < 3000 * NEIGHBOURS


def test_jaccard_is_the_share_of_the_union_in_both():
    assert jaccard(np.array([1, 2, 3, 5], np.uint32), np.array([2, 3, 7], np.uint32)) == 2 / 5


@pytest.mark.parametrize("memory", [1, 256 << 20])
def test_a_repeated_line_stays_in_the_text_of_smallest_hash_only(tmp_path, memory):
    config = DeduplicationConfig(lines=True)
    texts = [f"Text number {i} here\nAll rights  are RESERVED\nThe end\nall rights are reserved." for i in range(90)]
    verdicts = search(texts, config, tmp_path / "units", 4, memory)
    owner = min(texts, key=lambda text: hashlib.sha256(text.encode()).digest())
    for text, (_, rest) in zip(texts, results(texts, verdicts, 4), strict=True):
        assert rest == (text if text == owner else text.splitlines()[0] + "\nThe end\n")
    assert verdicts.counts["lines"] == 178
    assert verdicts.counts["characters"] == 89 * len("All rights  are RESERVED\nall rights are reserved.")


def test_repeated_paragraphs_go_and_overlapping_cuts_count_once(tmp_path):
    config = DeduplicationConfig(lines=True, paragraphs=True)
    shared = "one two three four\nfive six seven\n\n"
    texts = [f"Alpha beta {i}\n\n{shared}Last words of {i}" for i in range(2)]
    verdicts = search(texts, config, tmp_path / "units", unit=1)
    rests = [rest for _, rest in results(texts, verdicts, 1)]
    owner = min(range(2), key=lambda i: hashlib.sha256(texts[i].encode()).digest())
    assert rests[owner] == texts[owner]
    assert rests[1 - owner] == texts[1 - owner].replace(shared, "")
    assert {name: verdicts.counts[name] for name in ("lines", "paragraphs")} == {"lines": 2, "paragraphs": 1}
    assert verdicts.counts["characters"] == len(shared)


def test_lines_of_dropped_documents_do_not_count(tmp_path):
    text = "a line that is long enough\nb"
    config = DeduplicationConfig(lines=True)
    texts = [text, text.upper(), text + "!"]
    assert results(texts, search(texts, config, tmp_path / "units"))[2] == (None, text + "!")


def test_no_documents_have_no_duplicates(tmp_path):
    assert set(search([], ALL, tmp_path / "none").counts.values()) == {0}
    Signer(ALL).sign([]).save(tmp_path / "empty")
    found = duplicates.find_duplicates([tmp_path / "empty"], ALL, tmp_path / "scratch")
    assert len(found.of(0).drops) == 0


def test_every_step_can_be_switched_off(tmp_path):
    texts = ["same", "same"]
    assert reasons(texts, search(texts, DeduplicationConfig(exact=False), tmp_path / "units")) == [None, None]


def test_what_a_killed_search_left_is_cleared(tmp_path):
    left = tmp_path / "scratch" / "work" / "sorting-x"
    left.mkdir(parents=True)
    Signer(EXACT).sign(["same", "same"]).save(tmp_path / "a")
    verdicts = duplicates.find_duplicates([tmp_path / "a"], EXACT, left.parent.parent)
    assert verdicts.counts["exact"] == 1
    assert not left.parent.exists()
