"""Guessing ahead: the answer is what it would be without, whoever guesses and however badly."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import torch

from seedbed.errors import ConfigError
from seedbed.inference import choosing
from seedbed.inference.config import EngineConfig, SamplingConfig
from seedbed.inference.drafts import Followers
from seedbed.inference.engine import Engine
from seedbed.model.linears.layers import quantise
from seedbed.model.packed.pack import pack
from seedbed.tokenizers import byte_pair
from seedbed.tokenizers import bytes as byte_tokenizer
from tests.inference.company import serve_in_company
from tests.inference.test_schedules import REQUESTS
from tests.random_models import random_model, saved

TOKENIZER = byte_tokenizer.build()
SHAPE = {"tokenizer": TOKENIZER, "width": 32, "heads": 2, "kv_heads": 1, "head_width": 16, "context": 256}
PASSES = ("lookup", "ngram", "model", "itself", "short")
PATTERNS = ["Once ", "aaaa", "one two one two one two one ", "x" * 70, "木 and 🌱 and 木 and ", ""]


@pytest.fixture(scope="module")
def model():
    return pack(quantise(random_model(3, **SHAPE)))


@pytest.fixture(scope="module")
def drafts(model):
    """All that can guess: from texts, another model, the model itself, and one whose context ends soon."""
    other = pack(quantise(random_model(5, **SHAPE | {"width": 16, "layers": 1})))
    short = pack(random_model(3, **SHAPE | {"context": 80}))
    return {"lookup": "lookup", "ngram": "ngram", "model": other, "itself": model, "short": short}


@pytest.mark.parametrize("name", PASSES)
def test_greedy_guessing_is_greedy_for_five_hundred_prompts(name, model, drafts):
    chance = random.Random(0)
    prompts = [
        (chance.choice(PATTERNS) + chance.choice("abcde") + str(number) + chance.choice(PATTERNS)).encode()
        for number in range(500 // len(PASSES))
    ]
    sampling = SamplingConfig(max_tokens=24, temperature=0)
    plain = Engine(model, TOKENIZER).complete(prompts, sampling)
    guessing = Engine(model, TOKENIZER, draft=drafts[name]).complete(prompts, sampling)
    assert guessing == plain
    assert sum(completion.guessed for completion in guessing) > 100
    assert not any(completion.guessed for completion in plain)


@pytest.mark.parametrize("name", PASSES)
def test_of_random_schedules_each_answer_is_what_it_is_alone_without_guessing(name, model, drafts):
    """Every way to choose, penalties and log-probabilities among them; joins, cancels and caches that are too small."""
    alone = Engine(model, TOKENIZER)
    wanted = [alone.complete([alone.encode(prompt)], sampling)[0] for prompt, sampling in REQUESTS]
    for seed in range(40):
        chance = random.Random(seed)
        config = EngineConfig(
            rows=chance.choice([1, 3, 8]),
            step_tokens=chance.choice([7, 40, 512]),
            cache_tokens=chance.choice([256, 320, 1024]),
            guesses=chance.choice([1, 3, 9]),
        )
        engine = Engine(model, TOKENIZER, config, draft=drafts[name])
        serve_in_company(engine, REQUESTS, wanted, chance)


def test_a_model_that_guesses_for_itself_is_right(model):
    """Greedy or not: it chooses by the same numbers. So of six tokens one pass is the model's."""
    for temperature in (0, 1):
        engine = Engine(model, TOKENIZER, draft=model)
        steps = 0
        generation = engine.submit(engine.encode("Once"), SamplingConfig(max_tokens=61, temperature=temperature))
        while generation.reason is None:
            engine.step()
            steps += 1
        done = generation.completion
        assert done.reason == "length" and done.guessed == done.right == 50 and steps == 11


def test_a_stop_text_an_end_token_and_the_limit_hold_among_right_guesses(model):
    plain = Engine(model, TOKENIZER)
    ids = plain.encode("Once")
    whole = plain.complete([ids], SamplingConfig(max_tokens=30, temperature=0))[0]
    for place in range(1, 12):
        piece = plain.tokenizer.decode(whole.tokens[place : place + 2])
        for sampling in (
            SamplingConfig(max_tokens=place, temperature=0),
            SamplingConfig(max_tokens=30, temperature=0, stop=[piece]) if "\ufffd" not in piece else None,
        ):
            if sampling is not None:
                guessing = Engine(model, TOKENIZER, draft=model)
                assert guessing.complete([ids], sampling) == plain.complete([ids], sampling)
        tokenizer = byte_tokenizer.build()
        tokenizer.end_ids = (whole.tokens[place],)
        sampling = SamplingConfig(max_tokens=30, temperature=0)
        ending = Engine(model, tokenizer, draft=model).complete([ids], sampling)
        assert ending == Engine(model, tokenizer).complete([ids], sampling) and ending[0].reason == "end"


class Guessed(torch.nn.Module):
    """Stands for a model of ten tokens with the same probabilities at every place."""

    def __init__(self, probabilities):
        super().__init__()
        self.config = random_model(tokenizer=TOKENIZER, context=64).config
        self.device, self.dtype = torch.device("cpu"), torch.float32
        self.adapter, self.virtual_ids = None, []
        self.logits_V = torch.full((TOKENIZER.vocab_size,), -torch.inf)
        self.logits_V[:10] = torch.tensor(probabilities).log()

    def step(self, tokens_N, places, cache):
        return torch.zeros(len(tokens_N), 1)

    def logits(self, x_BD):
        return self.logits_V.expand(len(x_BD), -1)


LIKELY = [0.3, 0.2, 0.15, 0.1, 0.08, 0.06, 0.05, 0.03, 0.02, 0.01]
OTHERWISE = [0.02, 0.3, 0.05, 0.2, 0.03, 0.1, 0.1, 0.1, 0.05, 0.05]
NINE_DEGREES_99_999 = 39.3
"""What chi-square of nine degrees of freedom exceeds once in 100,000 times."""


def chi_square(draft):
    """Of 3,000 tokens that are chosen after guesses, against what the model says."""
    engine = Engine(Guessed(LIKELY), TOKENIZER, EngineConfig(rows=100), draft=draft)
    sampling = SamplingConfig(max_tokens=31, temperature=1)
    counts = Counter()
    for done in engine.complete([[65]], sampling, n=100):
        counts.update(done.tokens[1:])
        assert done.guessed > 0
    total = counts.total()
    assert total == 3000
    return sum((counts[token] - total * p) ** 2 / (total * p) for token, p in enumerate(LIKELY))


def test_tokens_after_guesses_are_as_likely_as_the_model_says():
    assert chi_square(Guessed(OTHERWISE)) < NINE_DEGREES_99_999


def test_a_wrong_rule_of_acceptance_would_be_seen(monkeypatch):
    """Every second guess is taken as it is."""

    def choose_each(logits_BV, configs, numbers):
        return [
            token if number < 0.5 else guess
            for token, guess, number in zip(
                right(logits_BV, configs, numbers), wrong(logits_BV, configs, numbers), numbers, strict=True
            )
        ]

    right = choosing.choose_each
    draft = Guessed(OTHERWISE)

    def wrong(logits_BV, configs, numbers):
        return right(draft.logits(logits_BV)[:, : logits_BV.shape[1]], configs, numbers)

    monkeypatch.setattr(choosing, "choose_each", choose_each)
    assert chi_square(draft) > NINE_DEGREES_99_999


def test_who_shares_no_cache_shares_no_guesses(model):
    engine = Engine(model, TOKENIZER, draft="ngram")
    sampling = SamplingConfig(max_tokens=30, temperature=0)

    def guessed(salt):
        generation = engine.submit(engine.encode("Once upon"), sampling, salt=salt)
        while generation.reason is None:
            engine.step()
        return generation.right

    first = guessed(b"one")
    assert guessed(b"one") > first == guessed(b"two")


def test_followers_are_the_latest_by_the_longest_context():
    followers = Followers()
    tokens = [1, 2, 3, 4, 9, 2, 3, 5]
    followers.learn(tokens, 0)
    assert followers.follow([1, 2, 3], 1) == [4] and followers.follow([7, 2, 3], 1) == [5]
    assert followers.follow([1, 2, 3], 9) == [4, 9, 2, 3, 5]
    assert followers.follow([3], 5) == followers.follow([], 5) == followers.follow([8, 8], 5) == []


def test_a_table_forgets_what_was_learned_longest_ago(monkeypatch):
    monkeypatch.setattr("seedbed.inference.drafts.MOST_ENTRIES", 4)
    followers = Followers()
    followers.learn(range(100), 0)
    assert len(followers.table) == 4 and followers.follow([97, 98], 1) == [99] and followers.follow([5, 6], 1) == []


def test_guesses_grow_while_they_are_right_and_shrink_when_not(model):
    generation = Engine(model, TOKENIZER).submit([65], SamplingConfig())
    found = []
    for guesses, right in (
        (5, 5),
        (5, 2),
        (4, 0),
        (3, 0),
        (2, 2),
        (4, 4),
        (5, 5),
        (1, 0),
        (1, 0),
        (1, 0),
        (1, 0),
        (1, 0),
    ):
        generation.judge(guesses, right, 5)
        found.append(generation.ahead)
    assert found == [5, 4, 3, 2, 4, 5, 5, 4, 3, 2, 1, 1]


def test_a_smaller_model_is_opened_beside_and_must_mean_the_same_by_each_token(tmp_path, monkeypatch):
    big = saved(tmp_path / "big", random_model(3, **SHAPE), TOKENIZER)
    small = saved(tmp_path / "small", random_model(5, **SHAPE | {"layers": 1}), TOKENIZER)
    plain, guessing = Engine.load(big), Engine.load(big, draft=small)
    assert guessing.generate("Once", max_tokens=20) == plain.generate("Once", max_tokens=20)
    other = byte_pair.train(["some text of another kind " * 9], 270)
    odd = saved(tmp_path / "odd", random_model(5, tokenizer=other), other)
    with pytest.raises(ConfigError, match="has another tokenizer"):
        Engine.load(big, draft=odd)


def test_a_draft_that_reads_both_ways_is_refused(model):
    with pytest.raises(ConfigError, match="the draft reads both ways"):
        Engine(model, TOKENIZER, draft=random_model(5, **SHAPE, causal=False))


@pytest.mark.parametrize(
    "sampling", [{"temperature": 1}, {"temperature": 1, "top_p": 0.9}, {"temperature": 0}], ids=str
)
@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_a_draft_whose_scores_are_no_numbers_spoils_nothing(broken, sampling, model):
    draft = random_model(5, **SHAPE)
    draft.final_norm.weight.data.fill_(broken)
    how = SamplingConfig(max_tokens=20, **sampling)
    wanted = Engine(model, TOKENIZER).complete([b"Once"], how)
    assert Engine(model, TOKENIZER, draft=pack(draft)).complete([b"Once"], how) == wanted


def test_a_draft_that_nobody_knows_is_refused(model):
    with pytest.raises(ConfigError, match="there is no draft 'look'"):
        Engine(model, TOKENIZER, draft="look")


def test_a_draft_that_is_quantized_already_is_taken_as_it_is(tmp_path):
    big = saved(tmp_path / "big", random_model(3, **SHAPE), TOKENIZER)
    small = saved(tmp_path / "small", quantise(random_model(5, **SHAPE)), TOKENIZER)
    plain, guessing = Engine.load(big, weights="int8"), Engine.load(big, weights="int8", draft=small)
    assert guessing.generate("Once", max_tokens=20) == plain.generate("Once", max_tokens=20)
