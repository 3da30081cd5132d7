"""Verifiable skills: questions with one right answer, made from a seed.

A tiny model cannot know facts, but it can learn to *do* things, and whether it does them is checked exactly. Six skills
are drawn over random strings of 3 to 8 letters, one- and two-digit sums, lists and sentences.

An item is a skill with its arguments; a question is one wording of it. Items are split by a hash of (skill,
arguments), so a held-out item is in training in no wording at all.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

HELD_OUT_SHARE = 10
"""One item in this many is held out."""

ALPHABET = "abcdefghijklmnopqrstuvwxyz"
WORDS = (
    *("a", "the", "one", "two", "my", "our", "red", "green", "blue", "old", "new", "small", "big", "warm"),
    *("cold", "quiet", "happy", "tall", "cat", "dog", "bird", "tree", "river", "stone", "house", "garden"),
    *("apple", "bread", "letter", "window", "mountain", "summer", "winter", "teacher", "doctor", "farmer"),
    *("sees", "finds", "likes", "keeps", "takes", "makes", "opens", "needs", "follows", "paints", "and"),
    *("near", "under", "with"),
)


@dataclass(frozen=True)
class SkillItem:
    """One question: its skill, the arguments that identify it in any wording, the prompt and the only right answer."""

    skill: str
    arguments: str
    prompt: str
    answer: str

    @property
    def held_out(self) -> bool:
        """Whether the item belongs to the evaluation: decided by its skill and arguments alone."""
        digest = hashlib.sha256(f"{self.skill}\0{self.arguments}".encode()).digest()
        return int.from_bytes(digest[:8], "big") % HELD_OUT_SHARE == 0


def arithmetic(rng: random.Random) -> SkillItem:
    """The sum of two numbers of one or two digits. 3 + 45 and 45 + 3 are the same item."""
    a, b = (rng.randrange(10 ** rng.randint(1, 2)) for _ in range(2))
    wording = rng.choice(["What is {a} + {b}?", "{a} + {b} =", "Add {a} and {b}.", "How much is {a} plus {b}?"])
    return SkillItem("arithmetic", f"{min(a, b)} {max(a, b)}", wording.format(a=a, b=b), str(a + b))


def copying(rng: random.Random) -> SkillItem:
    """Saying a random string again."""
    word = _random_word(rng)
    wording = rng.choice(["Copy {w}", "Repeat {w}", "Say {w} again.", "Write {w} once more."])
    return SkillItem("copying", word, wording.format(w=word), word)


def reversing(rng: random.Random) -> SkillItem:
    """Writing a random string backwards."""
    word = _random_word(rng)
    wording = rng.choice(["Reverse {w}", "Spell {w} backwards.", "Write {w} in reverse.", "Turn {w} around."])
    return SkillItem("reversing", word, wording.format(w=word), word[::-1])


def sorting(rng: random.Random) -> SkillItem:
    """Putting a list of 3 to 6 letters or one-digit numbers in order. The same entries in any order are one item."""
    pool = ALPHABET if rng.random() < 0.5 else "0123456789"
    entries = rng.sample(pool, rng.randint(3, 6))
    wording = rng.choice(["Sort {l}", "Put {l} in order.", "Order this list: {l}", "Arrange {l}"])
    return SkillItem(
        "sorting", " ".join(sorted(entries)), wording.format(l=" ".join(entries)), " ".join(sorted(entries))
    )


def counting(rng: random.Random) -> SkillItem:
    """How often a letter stands in a sentence of 2 or 3 words. The same words in any order are the same item."""
    words = [rng.choice(WORDS) for _ in range(rng.randint(2, 3))]
    sentence = " ".join(words)
    # Most letters come from the sentence, so that zero is not nearly always right.
    letter = rng.choice(sentence.replace(" ", "")) if rng.random() < 0.8 else rng.choice(ALPHABET)
    wording = rng.choice(["Count {c} in: {s}", "How many {c} in: {s}", "How often is {c} in: {s}"])
    return SkillItem(
        "counting",
        f"{letter} {' '.join(sorted(words))}",
        wording.format(c=letter, s=sentence),
        str(sentence.count(letter)),
    )


def looking_up(rng: random.Random) -> SkillItem:
    """Finding the number that belongs to a letter in a table of 2 to 5."""
    letters = rng.sample(ALPHABET, rng.randint(2, 5))
    values = [rng.randrange(100) for _ in letters]
    table = ", ".join(f"{letter} {value}" for letter, value in zip(letters, values, strict=True))
    asked = rng.randrange(len(letters))
    wording = rng.choice(["{t}. Look up {n}.", "{t}. What has {n}?", "{t}. And {n}?", "Find {n} in {t}."])
    prompt = wording.format(t=table, n=letters[asked])
    return SkillItem("looking_up", f"{letters[asked]}: {table}", prompt, f"{letters[asked]} {values[asked]}")


SKILLS: dict[str, Callable[[random.Random], SkillItem]] = {
    draw.__name__: draw for draw in (arithmetic, copying, reversing, sorting, counting, looking_up)
}


TRAINING_TURNS = (
    *("arithmetic", "copying", "counting", "looking_up", "sorting"),
    *("arithmetic", "reversing", "counting", "looking_up"),
)
"""The skills of training items, over and over: those that take longer to learn come twice."""


def training_items(count: int, *, seed: int = 0) -> Iterator[SkillItem]:
    """`count` items that are not held out."""
    rng = random.Random(f"training {seed}")
    for skill in itertools.islice(itertools.cycle(TRAINING_TURNS), count):
        yield _draw(SKILLS[skill], rng, held_out=False)


def held_out_items(per_skill: int, *, seed: int = 0, without: Iterable[SkillItem] = ()) -> Iterator[SkillItem]:
    """`per_skill` different held-out items of each skill, none of them one of `without`, in whatever wording.
    ValueError when a skill seems to have fewer: there are some 500 different sums."""
    others = {(item.skill, item.arguments) for item in without}
    for skill, draw in SKILLS.items():
        rng = random.Random(f"held out {seed} {skill}")
        seen = {arguments for other, arguments in others if other == skill}
        found = repeated = 0
        while found < per_skill:
            item = _draw(draw, rng, held_out=True)
            if item.arguments not in seen:
                seen.add(item.arguments)
                found, repeated = found + 1, 0
                yield item
            elif (repeated := repeated + 1) == 10_000:
                raise ValueError(f"{skill} has not {per_skill:,} different held-out items")


def constant_answers(items: Iterable[SkillItem]) -> dict[str, str]:
    """The answer that is right most often for each skill among `items`: the best that one constant can do."""
    counts: dict[str, Counter[str]] = {}
    for item in items:
        counts.setdefault(item.skill, Counter())[item.answer] += 1
    return {skill: max(counter, key=lambda answer: (counter[answer], answer)) for skill, counter in counts.items()}


def _draw(draw: Callable[[random.Random], SkillItem], rng: random.Random, *, held_out: bool) -> SkillItem:
    while True:
        item = draw(rng)
        if item.held_out == held_out:
            return item


def _random_word(rng: random.Random) -> str:
    return "".join(rng.choice(ALPHABET) for _ in range(rng.randint(3, 8)))
