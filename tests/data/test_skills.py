"""Questions with one right answer: right, made from a seed alone, and never held out and trained on at once.

Arguments and answers are worked out here from the text of the prompt, not taken from the item.
"""

from __future__ import annotations

import re
from collections import Counter

import pytest

from seedbed.data.skills import SKILLS, SkillItem, constant_answers, held_out_items, training_items

WORDINGS = {
    "arithmetic": [
        r"What is (?P<a>\d+) \+ (?P<b>\d+)\?",
        r"(?P<a>\d+) \+ (?P<b>\d+) =",
        r"Add (?P<a>\d+) and (?P<b>\d+)\.",
        r"How much is (?P<a>\d+) plus (?P<b>\d+)\?",
    ],
    "copying": [r"Copy (?P<w>\S+)", r"Repeat (?P<w>\S+)", r"Say (?P<w>\S+) again\.", r"Write (?P<w>\S+) once more\."],
    "reversing": [
        r"Reverse (?P<w>\S+)",
        r"Spell (?P<w>\S+) backwards\.",
        r"Write (?P<w>\S+) in reverse\.",
        r"Turn (?P<w>\S+) around\.",
    ],
    "sorting": [r"Sort (?P<l>.+)", r"Put (?P<l>.+) in order\.", r"Order this list: (?P<l>.+)", r"Arrange (?P<l>.+)"],
    "counting": [r"(?:Count|How many|How often is) (?P<c>.) in: (?P<s>.+)"],
    "looking_up": [
        r"(?P<t>.+)\. Look up (?P<n>\w+)\.",
        r"(?P<t>.+)\. What has (?P<n>\w+)\?",
        r"(?P<t>.+)\. And (?P<n>\w+)\?",
        r"Find (?P<n>\w+) in (?P<t>.+)\.",
    ],
}


def read(item: SkillItem) -> dict[str, str]:
    """The arguments as the prompt has them."""
    found = [match.groupdict() for wording in WORDINGS[item.skill] if (match := re.fullmatch(wording, item.prompt))]
    assert len(found) == 1, item.prompt
    return found[0]


def identity(item: SkillItem) -> tuple:
    """What is asked, whatever the wording."""
    read_ = read(item)
    if item.skill == "arithmetic":
        return (item.skill, frozenset([read_["a"], read_["b"]]))
    if item.skill == "sorting":  # the order given does not change the answer
        return (item.skill, *sorted(read_["l"].split(" ")))
    if item.skill == "counting":
        return (item.skill, read_["c"], *sorted(read_["s"].split(" ")))
    return (item.skill, *sorted(read_.items()))


def answer(item: SkillItem) -> str:
    """The right answer, worked out the slow way."""
    match item.skill, read(item):
        case "arithmetic", {"a": a, "b": b}:
            return str(len([*range(int(a)), *range(int(b))]))
        case "copying", {"w": word}:
            return "".join(letter for letter in word)
        case "reversing", {"w": word}:
            return "".join(reversed(word))
        case "sorting", {"l": entries}:
            rest, ordered = entries.split(" "), []
            while rest:
                ordered.append(min(rest, key=ord))
                rest.remove(ordered[-1])
            return " ".join(ordered)
        case "counting", {"c": letter, "s": sentence}:
            return str(sum(character == letter for character in sentence))
        case "looking_up", {"t": table, "n": name}:
            values = dict(row.split(" ") for row in table.split(", "))
            return f"{name} {values[name]}"
    raise AssertionError(item)


@pytest.fixture(scope="module")
def training():
    return list(training_items(50_000))


@pytest.fixture(scope="module")
def held_out():
    return list(held_out_items(200))


def test_items_are_a_function_of_the_seed(training):
    assert list(training_items(500)) == training[:500]
    assert list(training_items(500, seed=1)) != training[:500]
    assert list(held_out_items(20, seed=4)) == list(held_out_items(20, seed=4)) != list(held_out_items(20, seed=5))


def test_fewer_items_are_the_first_of_more(training):
    assert list(training_items(100)) == training[:100]


def test_no_held_out_question_is_in_training_in_any_wording(training, held_out):
    assert not {identity(item) for item in training} & {identity(item) for item in held_out}


def test_training_never_meets_what_another_seed_holds_out(training):
    others = {identity(item) for seed in (1, 2) for item in held_out_items(200, seed=seed)}
    assert not {identity(item) for item in training} & others


def test_held_out_questions_are_200_different_ones_of_each_skill(held_out):
    assert Counter(item.skill for item in held_out) == dict.fromkeys(SKILLS, 200)
    assert len({identity(item) for item in held_out}) == 6 * 200


def test_every_answer_is_right(training, held_out):
    wrong = [item for item in (*training, *held_out) if item.answer != answer(item)]
    assert wrong == []


def test_a_sum_is_the_same_item_in_either_order():
    class Drawn:
        """Draws the two numbers 3 and 45, in either order."""

        def __init__(self, *numbers):
            self.numbers = iter(numbers)

        def randint(self, low, high):
            return 2

        def randrange(self, end):
            return next(self.numbers)

        def choice(self, options):
            return options[0]

    forth, back = SKILLS["arithmetic"](Drawn(3, 45)), SKILLS["arithmetic"](Drawn(45, 3))
    assert (forth.prompt, back.prompt) == ("What is 3 + 45?", "What is 45 + 3?")
    assert (forth.arguments, forth.held_out) == (back.arguments, back.held_out)


def test_arguments_name_the_question_in_any_wording(training):
    """Two items have the same arguments exactly when they ask the same."""
    by_arguments, by_identity = {}, {}
    for item in training:
        assert by_arguments.setdefault((item.skill, item.arguments), identity(item)) == identity(item)
        assert by_identity.setdefault(identity(item), item.arguments) == item.arguments


def test_every_skill_is_asked_in_several_wordings_in_training_and_evaluation(training, held_out):
    for items in (training, held_out):
        for skill, wordings in WORDINGS.items():
            prompts = [item.prompt for item in items if item.skill == skill]
            for wording in wordings:
                assert any(re.fullmatch(wording, prompt) for prompt in prompts), wording


def test_about_one_item_in_ten_is_held_out(training):
    words = {f"{a}{b}{c}" for a in "abcdefghij" for b in "abcdefghij" for c in "abcdefghijklmnopqrstuvwxyz"}
    share = sum(SkillItem("copying", word, "", "").held_out for word in words) / len(words)
    assert share == pytest.approx(0.1, abs=0.02)
    assert not any(item.held_out for item in training)


@pytest.mark.parametrize("skill", ["copying", "reversing"])
def test_strings_are_of_3_to_8_random_letters(training, held_out, skill):
    for items in (training, held_out):
        words = [read(item)["w"] for item in items if item.skill == skill]
        assert all(re.fullmatch("[a-z]{3,8}", word) for word in words)
        assert {len(word) for word in words} == {3, 4, 5, 6, 7, 8}
        letters = Counter("".join(words))
        assert len(letters) == 26
        assert max(letters.values()) < 2 * min(letters.values())


def test_sums_are_of_one_and_two_digits(training, held_out):
    for items in (training, held_out):
        numbers = [tuple(map(int, read(item).values())) for item in items if item.skill == "arithmetic"]
        assert all(0 <= number <= 99 for pair in numbers for number in pair)
        digits = {tuple(sorted(len(str(number)) for number in pair)) for pair in numbers}
        assert digits == {(1, 1), (1, 2), (2, 2)}


def test_lists_have_3_to_6_different_entries(training, held_out):
    for items in (training, held_out):
        lists = [read(item)["l"].split(" ") for item in items if item.skill == "sorting"]
        assert {len(entries) for entries in lists} == {3, 4, 5, 6}
        assert all(len(set(entries)) == len(entries) for entries in lists)
        assert {"".join(entries).isdigit() for entries in lists} == {True, False}


def test_counting_reads_sentences_and_is_not_nearly_always_zero(training):
    items = [item for item in training if item.skill == "counting"]
    assert {len(read(item)["s"].split(" ")) for item in items} == {2, 3}
    answers = Counter(item.answer for item in items)
    assert {"0", "1", "2"} <= answers.keys()
    assert answers["0"] < 0.25 * len(items)
    assert max(answers.values()) < 0.75 * len(items)


def test_tables_have_2_to_5_different_rows(training, held_out):
    for items in (training, held_out):
        tables = [[row.split(" ") for row in read(i)["t"].split(", ")] for i in items if i.skill == "looking_up"]
        assert {len(table) for table in tables} == {2, 3, 4, 5}
        assert all(len({name for name, _ in table}) == len(table) for table in tables)


def test_every_skill_is_trained_on(training):
    assert min(Counter(item.skill for item in training).values()) > 50_000 / 10
    assert {item.skill for item in training} == set(SKILLS)


def test_the_constant_answer_is_the_most_frequent_one():
    items = [SkillItem("sums", "", "", answer) for answer in ("2", "3", "3")]
    items += [SkillItem("words", "", "", answer) for answer in ("b", "a")]
    assert constant_answers(items) == {"sums": "3", "words": "b"}
    assert constant_answers(reversed(items)) == {"sums": "3", "words": "b"}


def test_constant_answers_are_a_weak_baseline(training, held_out):
    constants = constant_answers(training)
    right = Counter(item.skill for item in held_out if item.answer == constants[item.skill])
    assert all(right[skill] < 0.75 * 200 for skill in SKILLS)
    assert right["copying"] == right["reversing"] == 0


def test_more_held_out_questions_than_there_are_is_refused():
    with pytest.raises(ValueError, match="arithmetic has not 5,000 different held-out items"):
        list(held_out_items(5_000))
