"""Beam search: what it finds is the best there is where all is followed, and what plain Python finds elsewhere."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from seedbed.errors import BusyError, ConfigError, DataError
from seedbed.inference.config import EngineConfig, SamplingConfig, SearchConfig
from seedbed.inference.engine import Engine
from seedbed.model.cache import BLOCK
from seedbed.model.packed.pack import pack
from seedbed.tokenizers import bytes as byte_tokenizer
from seedbed.tokenizers import characters
from tests.inference.plain_search import beam_search, exhaustive
from tests.random_models import random_model, saved

END = 16
"""A letter that these models like: what they say has many ends."""


@pytest.fixture(scope="module")
def tokenizer():
    """Of ten letters, with one way to end."""
    tokenizer = characters.train(["abcdefghij"])
    tokenizer.end_ids = (END,)
    return tokenizer


@pytest.fixture(scope="module")
def engine(tokenizer):
    return Engine(random_model(9, tokenizer=tokenizer, context=256), tokenizer)


def prompt_of(length):
    return [7 + (place * place + place // 7) % 10 for place in range(length)]


def everything_is_back(engine):
    blocks = engine.scheduler.blocks
    return blocks.available == blocks.count and not any(blocks.holders)


def told(completions):
    return [(done.tokens, pytest.approx(done.score, abs=1e-4)) for done in completions]


@pytest.mark.parametrize("length_penalty", [-1.0, 0.0, 0.6, 1.0, 2.0])
@pytest.mark.parametrize("early_stopping", ["full", "unlikely", "never"])
def test_with_a_beam_for_everything_it_finds_the_best_of_everything(length_penalty, early_stopping):
    model, tokenizer = random_model(3, vocab_size=5), characters.train("ab")
    assert [end for end in tokenizer.end_ids if end < 5] == [3]
    every = exhaustive(model, [1, 2], vocabulary=5, end=3, longest=4, length_penalty=length_penalty)
    assert len(every) == 1 + 4 + 16 + 64 + 256 and {reason for *_, reason in every[:40]} == {"end", "length"}
    settings = {"beams": 341, "best": 341, "length_penalty": length_penalty, "early_stopping": early_stopping}
    engine = Engine(model, tokenizer, EngineConfig(cache_tokens=350 * BLOCK))
    found = engine.search([1, 2], max_tokens=4, **settings)
    assert [(done.tokens, done.reason) for done in found] == [(tokens, reason) for _, tokens, reason in every]
    assert [done.score for done in found] == pytest.approx([score for score, *_ in every], abs=1e-5)


@pytest.mark.parametrize(
    "setting",
    [
        {},
        {"stop": ["cc", "gig"]},
        {"frequency_penalty": 0.7, "repetition_penalty": 1.4},
        {"no_repeat_ngram": 2, "logit_bias": {"16": 2.0}},
    ],
    ids=str,
)
@pytest.mark.parametrize("ends", [(END,), (END, 12)], ids=str)
def test_one_beam_is_greedy(engine, setting, ends):
    tokenizer = characters.train(["abcdefghij"])
    tokenizer.end_ids = ends
    one = Engine(engine.model, tokenizer)
    reasons = set()
    for length in (1, 20, 63, 65):
        ids, sampling = prompt_of(length), SamplingConfig(max_tokens=40, temperature=0, **setting)
        patient = {"early_stopping": "never", "length_penalty": 2.0}  # and yet the first end is the end
        found = one.search(ids, SearchConfig(beams=1, max_tokens=40, **patient, **setting))
        assert [replace(done, score=None) for done in found] == one.complete([ids], sampling)
        reasons.add(found[0].reason)
    assert reasons != {"length"}


GROUPED = {"beams": 6, "beam_groups": 3}


@pytest.mark.parametrize(
    "setting",
    [
        {"beams": 3},
        {"beams": 4, "length_penalty": 0.0, "frequency_penalty": 0.9},
        {"beams": 3, "length_penalty": 2.0, "stop": ["a", "c", "g"]},
        {**GROUPED, "diversity": 0.5},
        {**GROUPED, "diversity": 5.0, "frequency_penalty": 0.5},
        {"beams": 4, "beam_groups": 4, "diversity": 1.0, "stop": ["c", "g"]},
    ],
    ids=str,
)
@pytest.mark.parametrize("length", [1, 63, 64, 65])
def test_it_finds_what_plain_python_finds(engine, tokenizer, setting, length):
    config = SearchConfig(max_tokens=12, best=setting["beams"], early_stopping="full", **setting)

    def stopped(made):
        return any(text in tokenizer.decode(made) for text in config.stop)

    ids = prompt_of(length)
    wanted = beam_search(engine.model, ids, config, vocabulary=tokenizer.vocab_size, end=END, stopped=stopped)
    found = engine.search(ids, config)
    assert [(done.tokens, done.score) for done in found] == [
        (tokens, pytest.approx(score, abs=1e-4)) for tokens, score in wanted
    ]
    assert not config.stop or "stop" in {done.reason for done in found}


def test_groups_avoid_one_another(engine):
    ids, few = prompt_of(9), {"beams": 6, "best": 6, "max_tokens": 4, "logit_bias": {"16": -100.0}}

    def differing(**settings):
        found = engine.search(ids, **few, **settings)
        return len({done.tokens[0] for done in found}), len(found)

    assert differing() < (4, 7) and differing(beam_groups=6, diversity=100.0) == (6, 6)


TIMES = {"full": True, "unlikely": False, "never": "never"}


@pytest.fixture(scope="module")
def peer(engine, tokenizer, tmp_path_factory):
    model = random_model(58, tokenizer=tokenizer, context=256, qk_norm=False)
    folder = saved(tmp_path_factory.mktemp("peer") / "model", model, tokenizer)
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert isinstance(theirs, LlamaForCausalLM)
    return Engine(model, tokenizer), theirs.eval()


@pytest.mark.parametrize("length_penalty", [-0.5, 0.0, 1.0, 1.7])
@pytest.mark.parametrize("early_stopping", list(TIMES))
@pytest.mark.parametrize("beams", [2, 5])
def test_it_finds_what_transformers_finds(peer, beams, early_stopping, length_penalty):
    """Peer: transformers, the installed version. Diverse groups and contrastive search have left it with version 5."""
    engine, theirs = peer
    assert transformers.__version__ >= "5"
    lengths = set()
    for length in (3, 20, 64):
        ids = prompt_of(length)
        with torch.no_grad():
            wanted = theirs.generate(
                torch.tensor([ids]),
                **{"num_beams": beams, "num_return_sequences": beams, "max_new_tokens": 30, "do_sample": False},
                **{"length_penalty": length_penalty, "early_stopping": TIMES[early_stopping], "eos_token_id": END},
                **{"pad_token_id": 0, "return_dict_in_generate": True, "output_scores": True},
            )
        rows = [row[length:].tolist() for row in wanted.sequences]
        rows = [tuple(row[: row.index(END)] if END in row else row) for row in rows]
        settings = {"best": beams, "length_penalty": length_penalty, "early_stopping": early_stopping}
        found = engine.search(ids, beams=beams, max_tokens=30, **settings)
        assert [done.tokens for done in found] == rows
        assert [done.score for done in found] == pytest.approx(wanted.sequences_scores.tolist(), abs=1e-4)
        lengths |= set(map(len, rows))
    assert len(lengths) > 2 or length_penalty > 1


def test_the_best_come_first_and_no_two_are_the_same(engine):
    """Also where two end tokens end the same tokens, and where groups find the same."""
    tokenizer = characters.train(["abcdefghij"])
    tokenizer.end_ids = (END, 12)
    for settings in ({}, {"beam_groups": 4, "diversity": 0.01}, {"beam_groups": 2, "diversity": 1.0}):
        found = Engine(engine.model, tokenizer).search(prompt_of(5), beams=8, best=8, max_tokens=12, **settings)
        assert len(found) > 1 and len({done.tokens for done in found}) == len(found)
        assert [done.score for done in found] == sorted((done.score for done in found), reverse=True)
        fewer = Engine(engine.model, tokenizer).search(prompt_of(5), beams=8, best=2, max_tokens=12, **settings)
        assert fewer == found[:2]


def test_the_probabilities_of_its_tokens_are_told_and_make_its_score(engine):
    found = engine.search(prompt_of(5), beams=3, best=3, max_tokens=9, logprobs=2, length_penalty=1.0)
    for done in found:
        logprobs = [each.logprob for each in done.likelihoods]
        assert len(logprobs) == len(done.tokens) + (done.reason == "end")
        assert done.score == pytest.approx(sum(logprobs) / len(logprobs), abs=1e-5)


def test_a_text_is_read_like_its_tokens(engine, tokenizer):
    assert engine.search("abba", beams=2) == engine.search(engine.encode("abba"), SearchConfig(beams=2))


# In the cache --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [60, 64, 130])
def test_beams_share_what_they_have_in_common_and_copy_only_a_block_that_is_being_filled(engine, length, monkeypatch):
    one = Engine(engine.model, engine.tokenizer)
    copied, most = [], 0
    copy, step = one.cache.copy, one.model.step

    def watched_copy(source, target):
        copied.append((source, target))
        assert one.scheduler.blocks.holders[source] > 1 and one.scheduler.blocks.holders[target] == 1
        copy(source, target)

    def watched_step(tokens_N, places, cache):
        nonlocal most
        most = max(most, sum(map(bool, one.scheduler.blocks.holders)))
        where = places.tables_QW[places.sequences_N.long(), places.positions_N.long() // BLOCK].tolist()
        assert len(set(zip(where, (places.positions_N % BLOCK).tolist(), strict=True))) == len(tokens_N)
        return step(tokens_N, places, cache)

    monkeypatch.setattr(one.cache, "copy", watched_copy)
    monkeypatch.setattr(one.model, "step", watched_step)
    one.search(prompt_of(length), beams=4, max_tokens=60, logit_bias={"16": -100.0})
    assert most <= length // BLOCK + 4 * (-(-(length + 60) // BLOCK) - length // BLOCK)
    assert everything_is_back(one) and (len(copied) > 3 or length % BLOCK == 0)


@pytest.mark.parametrize("config", [{"window": 70}, {"window": 2, "short_convolution": 4}], ids=str)
@pytest.mark.parametrize("head_width", [8, 16], ids=["by PyTorch", "by the kernel"])
def test_beams_of_a_model_with_windows_keep_no_more_than_they_see(tokenizer, config, head_width):
    model = random_model(3, tokenizer=tokenizer, context=400, head_width=head_width, **config)
    one = Engine(model, tokenizer, EngineConfig(rows=3, step_tokens=50))
    search = SearchConfig(beams=2, best=2, max_tokens=90, early_stopping="full", logit_bias={"16": -100.0})
    ids = prompt_of(200)
    found = one.search(ids, search)
    logits_TV = model(torch.tensor([[*ids, *found[0].tokens]]))[0, 199:-1].clone()
    logits_TV[:, END] -= 100
    wanted = logits_TV.log_softmax(-1).gather(-1, torch.tensor(found[0].tokens)[:, None]).mean()
    assert found[0].score == pytest.approx(wanted.item(), abs=1e-4) and everything_is_back(one)


@pytest.fixture(scope="module")
def exact():
    """An engine whose bits are promised."""
    tokenizer = byte_tokenizer.build()
    model = pack(random_model(3, tokenizer=tokenizer, head_width=16, context=256))
    tokenizer.end_ids = ()
    return lambda **config: Engine(model, tokenizer, EngineConfig(exact=True, **config))


TEXT = "It was the best of times, it was the worst of times, " * 2
SEARCHES = [
    SearchConfig(beams=4, best=4, max_tokens=70),
    SearchConfig(beams=4, best=4, max_tokens=30, beam_groups=2, diversity=0.5, frequency_penalty=0.3),
    SearchConfig(penalty_alpha=0.6, top_k=4, max_tokens=70),
]


@pytest.mark.parametrize("cache", ["auto", "int8"])
@pytest.mark.parametrize("search", SEARCHES, ids=["beams", "groups", "contrastive"])
def test_it_finds_the_same_bits_alone_and_in_company_and_disturbs_nobody(exact, search, cache):
    engine, sampling = exact(cache=cache), SamplingConfig(max_tokens=60, seed=3, logprobs=1)
    alone = engine.search(TEXT, search)
    prompts = [engine.encode(text) for text in (TEXT, TEXT[:70] + "others", "x")]
    wanted = engine.complete(prompts, sampling)
    company = exact(step_tokens=40, cache=cache)
    made = [company.submit(ids, sampling) for ids in prompts]
    while any(generation.reason is None for generation in made):
        for _ in range(9):
            company.step()
        assert company.search(TEXT, search) == alone
    assert [generation.completion for generation in made] == wanted and everything_is_back(company)


@pytest.mark.parametrize("cache", ["auto", "int8"])
def test_one_beam_has_the_bits_of_greedy(exact, cache):
    greedy = SamplingConfig(max_tokens=90, temperature=0, logprobs=3, frequency_penalty=0.2)
    one = SearchConfig(beams=1, max_tokens=90, logprobs=3, frequency_penalty=0.2)
    found, plain = exact(cache=cache).search(TEXT, one)[0], exact(step_tokens=30, cache=cache)
    assert replace(found, score=None) == plain.complete([plain.encode(TEXT)], greedy)[0]


@pytest.mark.parametrize("search", SEARCHES, ids=["beams", "groups", "contrastive"])
def test_blocks_come_back_when_it_breaks_off(exact, search, monkeypatch):
    engine = exact()
    step = engine.model.step
    for number in (1, 2, 5):
        steps = iter(range(number))

        def broken(*places, steps=steps):
            next(steps)
            return step(*places)

        monkeypatch.setattr(engine.model, "step", broken)
        with pytest.raises(StopIteration):
            engine.search(TEXT, search)
        assert everything_is_back(engine)
    monkeypatch.setattr(engine.model, "step", step)
    assert engine.search(TEXT, search) == exact().search(TEXT, search)


@pytest.mark.parametrize("search", SEARCHES[:1] + SEARCHES[2:], ids=["beams", "contrastive"])
def test_it_is_refused_when_the_cache_is_too_small_for_it(exact, search):
    small = exact(rows=1, cache_tokens=256)
    many = replace(search, **({"beams": 8} if search.beams else {"top_k": 14}))
    with pytest.raises(DataError, match=r"continuations of 177 tokens may need 1\d blocks of the cache, which has 4"):
        small.search(TEXT, many)
    engine = exact(rows=1, cache_tokens=1152)
    other = engine.submit(engine.encode("x" * 250), SamplingConfig(max_tokens=5))
    engine.step()
    with pytest.raises(BusyError, match=r"1\d blocks of the cache, of which 14 are free while others"):
        engine.search(TEXT, many)
    while other.reason is None:
        engine.step()
    assert engine.search(TEXT, many) and everything_is_back(engine) and everything_is_back(small)


# Ends ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "search", [{"beams": 3, "best": 3}, {"penalty_alpha": 0.5, "top_k": 3}], ids=["beams", "contrastive"]
)
def test_a_search_whose_time_is_over_tells_what_it_has(engine, search, monkeypatch):
    times = iter(range(100))
    monkeypatch.setattr("seedbed.inference.engine.time.monotonic", lambda: float(next(times)))
    found = engine.search(prompt_of(5), timeout=4.5, max_tokens=50, logit_bias={"16": -100.0}, **search)
    assert len(found) == search.get("best", 1)
    assert all(done.reason == "timeout" and len(done.tokens) == 4 for done in found)
    assert everything_is_back(engine)


@pytest.mark.parametrize(
    "search", [{"beams": 3, "best": 3}, {"penalty_alpha": 0.5, "top_k": 3}], ids=["beams", "contrastive"]
)
def test_a_search_that_may_say_nothing_more_is_told(engine, search):
    tokenizer = characters.train(["abcdefghij"])
    tokenizer.end_ids = ()
    one = Engine(engine.model, tokenizer)
    with pytest.raises(DataError, match="no token is possible any more"):
        one.search(prompt_of(5), no_repeat_ngram=1, max_tokens=100, **search)
    assert everything_is_back(one)


@pytest.mark.parametrize("search", [{"beams": 3}, {"penalty_alpha": 0.5, "top_k": 3}], ids=["beams", "contrastive"])
def test_bad_prompts_and_broken_weights_are_told(engine, search):
    for ids, problem in (([], "empty"), (prompt_of(300), "context is 256"), ([99], "token 99")):
        with pytest.raises(DataError, match=problem):
            engine.search(ids, **search)
    model = random_model(3, tokenizer=engine.tokenizer)
    with torch.no_grad():
        model.final_norm.weight[0] = torch.nan
    with pytest.raises(DataError, match="scores are not numbers"):
        Engine(model, engine.tokenizer).search(prompt_of(5), **search)


def test_a_search_needs_a_way_to_search(engine):
    with pytest.raises(ConfigError, match="a search needs beams or penalty_alpha"):
        engine.search("ab", max_tokens=4)
    with pytest.raises(ConfigError, match="are for a search, and this draws"):
        engine.generate("ab", SearchConfig(beams=4))


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"beams": 0}, "beams must be between 1"),
        ({"beams": 2, "best": 3}, "best is 3, of 2 beams"),
        ({"best": 2}, "best is 2, of 1 beams"),
        ({"beams": 5, "beam_groups": 2, "diversity": 0.5}, "5 beams do not make 2 equal groups"),
        ({"beams": 4, "beam_groups": 2}, "of use only together"),
        ({"beams": 4, "diversity": 0.5}, "of use only together"),
        ({"beams": 4, "penalty_alpha": 0.5, "top_k": 4}, "two ways to search"),
        ({"penalty_alpha": 0.5}, "penalty_alpha needs top_k"),
        ({"penalty_alpha": 1.5, "top_k": 4}, "penalty_alpha must be between 0 and 1"),
        ({"beams": 4, "top_k": 4}, "top_k is for drawing by chance"),
        ({"penalty_alpha": 0.5, "top_k": 4, "min_p": 0.1}, "min_p is for drawing by chance"),
        ({"beams": 4, "length_penalty": float("nan")}, "length_penalty must be between"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense_together_are_refused(settings, problem):
    with pytest.raises(ConfigError, match=problem):
        SearchConfig(**settings)


def test_a_search_keeps_to_a_constraint_and_finds_the_likeliest_of_its_texts():
    engine = Engine(random_model(3, tokenizer=byte_tokenizer.build()), byte_tokenizer.build())
    choice = ["yes", "no", "yesterday", "nothing at all"]
    found = engine.search("Once", beams=8, best=4, choice=choice, length_penalty=0.0, max_tokens=30)
    assert {completion.text for completion in found} == set(choice)
    ids = engine.encode("Once")

    def logprob(text):
        sampling = SearchConfig(beams=1, choice=[text], logprobs=0, max_tokens=30)
        return sum(likelihood.logprob for likelihood in engine.search(ids, sampling)[0].likelihoods)

    assert all(completion.jumped == 0 for completion in found)
    assert engine.search("Once", beams=8, choice=["yes"], max_tokens=30)[0].score == pytest.approx(0, abs=1e-6)
    assert logprob("yes") < 0
