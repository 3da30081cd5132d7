"""The engine: rows that do not disturb one another, text as it comes, and every way to end."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from seedbed.errors import ConfigError, DataError
from seedbed.inference.adjustments import penalised
from seedbed.inference.config import EngineConfig, SamplingConfig
from seedbed.inference.engine import Engine
from seedbed.inference.sampling import choose, uniform
from seedbed.model.packed.pack import pack
from seedbed.tokenizers import byte_pair
from seedbed.tokenizers import bytes as byte_tokenizer
from seedbed.tokenizers.chat import encode_prompt
from tests.random_models import random_model, saved

TOKENIZER = byte_tokenizer.build()
PROMPTS = ["Once", "A much longer opening than that", "x", "木 and 🌱", "Once"]
SAMPLINGS = {
    "plain": {},
    "greedy": {"temperature": 0},
    "all filters": {"top_k": 40, "top_p": 0.9, "min_p": 0.01, "repetition_penalty": 1.3, "seed": 5},
    "stops": {"stop": ["a", "e", "\n"], "seed": 2},
}


@pytest.fixture(scope="module")
def engine():
    return Engine(random_model(3, tokenizer=TOKENIZER), TOKENIZER)


class Recited(torch.nn.Module):
    """Stands for a model: after any token at position p it says script[p], whatever the row holds."""

    def __init__(self, script, vocabulary=TOKENIZER.vocab_size, context=64):
        super().__init__()
        self.config = random_model(tokenizer=TOKENIZER, context=context).config
        self.script = torch.tensor(script)
        self.device, self.dtype = torch.device("cpu"), torch.float32
        self.adapter, self.virtual_ids = None, []
        self.vocabulary = vocabulary

    def step(self, tokens_N, places, cache):
        positions_N = places.positions_N.long().clamp(max=len(self.script) - 1)
        return torch.nn.functional.one_hot(self.script[positions_N], self.vocabulary)

    def logits(self, x):
        return x.float() * 50


def recite(said, **settings):
    """The completion of a prompt of one token by a model that says the token ids `said`."""
    context = settings.pop("context", 64)
    sampling = SamplingConfig(**{"temperature": 0, **settings})
    return list(Engine(Recited(said, context=context), TOKENIZER).stream([[65]], sampling))


def said(events):
    return "".join(event.text for event in events), events[-1].completion


@torch.no_grad()
def test_tokens_are_those_of_full_forward_passes(engine):
    """The engine with its cache against the plainest loop."""
    ids = engine.encode("Once upon")
    for setting in SAMPLINGS.values():
        sampling = SamplingConfig(max_tokens=20, **{**setting, "stop": []})
        made = engine.complete([ids], sampling)[0].tokens
        row = list(ids)
        for _ in made:
            logits_BV = engine.model(torch.tensor([row]))[:, -1]
            if sampling.repetition_penalty != 1:
                logits_BV[:, row] = penalised(logits_BV[:, row], sampling.repetition_penalty)
            row.append(choose(logits_BV, sampling, [uniform(sampling.seed, len(row))]).item())
        assert tuple(row[len(ids) :]) == made


@pytest.mark.parametrize("setting", SAMPLINGS.values(), ids=list(SAMPLINGS))
def test_a_request_gives_the_same_alone_and_among_others(engine, setting):
    sampling = SamplingConfig(max_tokens=25, **setting)
    prompts = [engine.encode(prompt) for prompt in PROMPTS]
    together = engine.complete(prompts, sampling)
    assert together == [engine.complete([prompt], sampling)[0] for prompt in prompts]
    assert together[::-1] == engine.complete(prompts[::-1], sampling)


def test_the_seed_decides(engine):
    first, again, other = (engine.generate("Once", seed=seed, max_tokens=30) for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("setting", SAMPLINGS.values(), ids=list(SAMPLINGS))
def test_pieces_join_to_the_whole_text(engine, setting):
    prompts = [engine.encode(prompt) for prompt in PROMPTS]
    pieces = [""] * len(prompts)
    finished = {}
    for event in engine.stream(prompts, SamplingConfig(max_tokens=25, **setting)):
        assert event.row not in finished
        pieces[event.row] += event.text
        if event.completion is not None:
            finished[event.row] = event.completion.text
    assert pieces == [finished[row] for row in range(len(prompts))]


def test_one_text_in_is_one_text_out_and_a_list_is_a_list(engine):
    alone = engine.generate("Once", max_tokens=5)
    assert engine.generate(["Once", "x"], max_tokens=5)[0] == alone
    assert engine.generate([], max_tokens=5) == []


def test_a_setting_that_there_is_not_is_refused_with_the_one_that_is_meant(engine):
    for wrong, said in (("max_new_tokens", "here it is max_tokens"), ("temprature", "did you mean temperature")):
        with pytest.raises(ConfigError, match=f"there is no setting '{wrong}'; {said}"):
            engine.generate("Once", **{wrong: 5})
    with pytest.raises(ConfigError, match="stop is a list of texts"):
        engine.generate("Once", stop="ab")


def test_settings_go_before_the_sampling_they_come_with(engine):
    sampling = SamplingConfig(max_tokens=9, temperature=0)
    shorter = engine.generate("Once", sampling, max_tokens=4)
    assert shorter == engine.generate("Once", max_tokens=4, temperature=0) != engine.generate("Once", sampling)


@pytest.mark.parametrize("end", TOKENIZER.end_ids)
def test_each_end_token_ends(end):
    text, done = said(recite([ord("h"), ord("i"), end, ord("!")]))
    assert (text, done.text, done.tokens, done.reason) == ("hi", "hi", (104, 105), "end")


def test_an_answer_can_be_empty():
    text, done = said(recite([TOKENIZER.eos_id]))
    assert (text, done.text, done.tokens, done.reason) == ("", "", (), "end")


def test_rows_that_end_at_once_leave_the_others_alone(engine):
    """The token that the first row chooses first is made an end token: that row is over before the others."""
    prompts = [engine.encode(prompt) for prompt in PROMPTS]
    first = [done.tokens[0] for done in engine.complete(prompts, SamplingConfig(max_tokens=1, temperature=0))]
    assert len(set(first)) > 1
    tokenizer = byte_tokenizer.build()
    tokenizer.end_ids = (first[0],)
    ending, sampling = Engine(engine.model, tokenizer), SamplingConfig(max_tokens=12, temperature=0)
    together = ending.complete(prompts, sampling)
    assert together[0].tokens == ()
    assert together == [ending.complete([prompt], sampling)[0] for prompt in prompts]


def test_max_tokens_is_the_most(engine):
    script = list(b"abcdefghij")
    text, done = said(recite(script, max_tokens=4))
    assert (text, len(done.tokens), done.reason) == ("abcd", 4, "length")


@pytest.mark.parametrize("settings", [{}, {"temperature": 0}, {"logprobs": 2, "presence_penalty": 0.5}], ids=str)
def test_min_tokens_is_the_least(engine, settings):
    """Of requests that would end at once, the others as they are."""
    ids, ends = engine.encode("Once"), dict.fromkeys(map(str, TOKENIZER.end_ids), 100.0)
    samplings = [SamplingConfig(max_tokens=20, min_tokens=least, logit_bias=ends, **settings) for least in (0, 7, 20)]
    made = [engine.submit(ids, sampling) for sampling in samplings]
    while any(generation.reason is None for generation in made):
        engine.step()
    done = [generation.completion for generation in made]
    assert [(len(each.tokens), each.reason) for each in done] == [(0, "end"), (7, "end"), (20, "length")]
    assert not set(done[2].tokens) & set(TOKENIZER.end_ids) and done[1].tokens == done[2].tokens[:7]
    found = engine.search(ids, beams=3, best=3, max_tokens=20, min_tokens=7, logit_bias=ends)
    assert {len(each.tokens) for each in found} == {7}


def test_a_stop_text_counts_only_beyond_min_tokens():
    text, done = said(recite(list(b"abxENDyENDz"), stop=["END"], min_tokens=5))
    assert (text, done.reason) == ("abxENDy", "stop")  # of the first one the text was told already
    text, done = said(recite(list(b"abxENDyENDz"), stop=["END"], min_tokens=6))
    assert (text, done.reason, len(done.tokens)) == ("abxENDy", "stop", 10)
    assert said(recite(list(b"abxEND"), stop=["END"], min_tokens=4))[0] == "abx"


def test_the_context_is_the_most():
    text, done = said(recite(list(b"abcdefghij"), max_tokens=100, context=6))
    assert (text, done.reason) == ("abcde", "length")  # and the one token of the prompt: 6


def test_a_real_model_fills_its_context_to_the_end():
    model = random_model(3, tokenizer=TOKENIZER, context=16)
    done = Engine(model, TOKENIZER).complete([[65] * 15, [66] * 4], SamplingConfig(max_tokens=50, seed=3))
    assert [len(row.tokens) for row in done] == [1, 12]


def test_a_stop_text_across_tokens_never_leaks():
    for stop in ("END", "D", "xEND"):
        events = recite(list(b"abxENDyz"), stop=[stop])
        text, done = said(events)
        assert text == done.text == "abxENDyz".split(stop)[0]
        assert done.reason == "stop"


def test_half_a_stop_text_is_told_at_the_end():
    assert said(recite([*b"abEN", TOKENIZER.eos_id], stop=["END"]))[0] == "abEN"
    assert said(recite(list(b"abEN"), stop=["END"], max_tokens=4))[0] == "abEN"


def test_a_character_of_several_tokens_comes_whole():
    events = recite([*"é木🌱".encode(), TOKENIZER.eos_id])
    assert [event.text for event in events] == ["é", "木", "🌱", ""]


def test_a_character_cut_by_max_tokens_is_marked():
    text, done = said(recite(list("a🌱".encode()), max_tokens=3))
    assert text == done.text == "a\ufffd"


def test_special_tokens_have_no_text():
    assert said(recite([97, TOKENIZER.special_ids["<mask>"], 98, TOKENIZER.eos_id]))[0] == "ab"


def test_the_penalty_sees_the_prompt(engine):
    """An endless penalty forbids every token of prompt and answer: no token comes twice."""
    ids = engine.encode("abcabc")
    for temperature in (0, 1.0):
        sampling = SamplingConfig(max_tokens=40, temperature=temperature, repetition_penalty=1e30)
        logits = engine.model(torch.tensor([ids]))[0, -1]
        assert logits[ids].max() > 0  # one of them might have been chosen
        tokens = engine.complete([ids], sampling)[0].tokens
        assert not set(tokens) & {token for token in ids if logits[token] != 0}
        assert len(set(tokens)) == len(tokens)


def test_an_empty_prompt_begins_with_the_beginning_of_a_text(engine):
    assert engine.encode("") == [TOKENIZER.bos_id]
    assert engine.generate("", max_tokens=3, temperature=0) == engine.generate([""], max_tokens=3, temperature=0)[0]


def test_an_empty_prompt_without_a_first_token_is_refused():
    tokenizer = byte_tokenizer.build(specials=False)
    with pytest.raises(DataError, match="the prompt is empty"):
        Engine(random_model(tokenizer=tokenizer), tokenizer).generate("")


@pytest.mark.parametrize("length", [63, 64, 2000])
def test_a_prompt_beyond_the_context_is_refused(engine, length):
    with pytest.raises(DataError, match=f"the prompt has {length + 1:,} tokens, the model's context is 64"):
        engine.generate("x" * length)


def test_a_chat_is_the_templates_prompt_completed(engine):
    messages = [{"role": "user", "content": "Hi"}]
    ids = encode_prompt(TOKENIZER, messages)
    sampling = SamplingConfig(max_tokens=8)
    assert engine.chat(messages, max_tokens=8) == engine.complete([ids], sampling)[0].text


def test_byte_pairs_stream_as_they_decode():
    texts = [f"{word} naïve 木 {word}s" for word in ("seed", "grows", "slowly", "soil", "waits", "rain")]
    tokenizer = byte_pair.train(texts, 275)
    engine = Engine(random_model(3, tokenizer=tokenizer), tokenizer)
    done = engine.complete([engine.encode("grows slowly")], SamplingConfig(max_tokens=50, temperature=2.0))[0]
    assert done.text == tokenizer.decode(done.tokens)


def test_a_folder_answers_as_the_model_it_holds(engine, tmp_path):
    folder = saved(tmp_path / "model", engine.model, TOKENIZER)
    assert Engine.load(folder).generate("Once", max_tokens=20) == engine.generate("Once", max_tokens=20)


# Many at once ---------------------------------------------------------------------------------------------------------


def texts(engine, prompts, samplings):
    """What each request gives, all of them under way together."""
    made = [engine.submit(engine.encode(prompt), sampling) for prompt, sampling in zip(prompts, samplings, strict=True)]
    while any(generation.reason is None for generation in made):
        engine.step()
    return [generation.completion for generation in made]


LONG = [f"{number} " + "abcdefg " * 20 for number in range(6)]
MANY = [SamplingConfig(max_tokens=40, seed=seed, temperature=[0, 0.7, 1.2][seed % 3]) for seed in range(6)]


@pytest.fixture(scope="module")
def long_engine():
    return Engine(random_model(3, tokenizer=TOKENIZER, context=512), TOKENIZER)


@pytest.fixture(scope="module")
def wanted(long_engine):
    """Each request alone."""
    return [texts(long_engine, [prompt], [sampling])[0] for prompt, sampling in zip(LONG, MANY, strict=True)]


@pytest.mark.parametrize(
    "config",
    [
        EngineConfig(),
        EngineConfig(rows=2),
        EngineConfig(step_tokens=7),
        EngineConfig(cache_tokens=512),  # of 1,200 that are wanted: the youngest make room again and again
        EngineConfig(rows=3, step_tokens=50, cache_tokens=600),
    ],
    ids=str,
)
def test_requests_of_all_kinds_give_the_same_together_as_alone(config, long_engine, wanted):
    engine = Engine(long_engine.model, TOKENIZER, config)
    for _ in range(2):  # the second time their beginnings are there
        assert texts(engine, LONG, MANY) == wanted
    blocks = engine.scheduler.blocks
    assert blocks.available == blocks.count


BAD = {
    "a beginning that is empty": ([], {}),
    "beyond the context": ([65] * 600, {}),
    "a token that is none": ([65, 10_000], {}),
    "a bias for a token that is none": ([65], {"logit_bias": {"10000": 1.0}}),
}


@pytest.mark.parametrize(("ids", "setting"), BAD.values(), ids=list(BAD))
def test_a_bad_request_is_refused_and_disturbs_no_other(ids, setting, long_engine, wanted):
    engine = Engine(long_engine.model, TOKENIZER)
    made = [engine.submit(engine.encode(prompt), sampling) for prompt, sampling in zip(LONG, MANY, strict=True)]
    engine.step()
    with pytest.raises(DataError):
        engine.submit(ids, SamplingConfig(**setting))
    while any(generation.reason is None for generation in made):
        engine.step()
    assert [generation.completion for generation in made] == wanted


def test_a_request_that_forbids_everything_fails_alone(long_engine, wanted):
    endless = byte_tokenizer.build()
    endless.end_ids = ()
    engine = Engine(long_engine.model, endless)
    everything = SamplingConfig(no_repeat_ngram=1, max_tokens=400)  # after 260 tokens or so none is left
    made = [engine.submit(engine.encode(prompt), sampling) for prompt, sampling in zip(LONG, MANY, strict=True)]
    failing = engine.submit(engine.encode("x"), everything)
    while any(generation.reason is None for generation in [*made, failing]):
        engine.step()
    assert [generation.completion for generation in made] == wanted
    assert failing.reason == "error" and failing.error.problem.startswith("no token is possible any more")
    with pytest.raises(DataError, match="no token is possible any more"):
        engine.complete([engine.encode("x")], everything)
    assert engine.scheduler.blocks.available == engine.scheduler.blocks.count


def test_broken_weights_are_told():
    model = random_model(3, tokenizer=TOKENIZER)
    with torch.no_grad():
        model.final_norm.weight[0] = torch.nan
    with pytest.raises(DataError, match="scores are not numbers"):
        Engine(model, TOKENIZER).generate("x")


def test_a_request_whose_time_is_over_ends_as_it_is(long_engine, wanted, monkeypatch):
    engine = Engine(long_engine.model, TOKENIZER)
    now = 100.0
    monkeypatch.setattr("seedbed.inference.engine.time.monotonic", lambda: now)
    slow = engine.submit(engine.encode(LONG[0]), replace(MANY[0], timeout=5.0))
    other = engine.submit(engine.encode(LONG[1]), MANY[1])
    for _ in range(4):
        engine.step()
    now = 105.0
    while other.reason is None:
        engine.step()
    assert slow.completion.reason == "timeout" and other.completion == wanted[1]
    assert 0 < len(slow.completion.tokens) < 40
    assert slow.completion.tokens == wanted[0].tokens[: len(slow.completion.tokens)]


def test_several_of_one_prompt_differ_and_the_first_is_that_of_one(engine):
    ids, sampling = engine.encode("Once"), SamplingConfig(max_tokens=20, seed=3)
    some = engine.complete([ids, ids[:2]], sampling, n=3)
    assert len(set(some)) == 6
    assert [some[0], some[3]] == engine.complete([ids, ids[:2]], sampling)
    assert some[:3] == engine.complete([ids], sampling, n=3)


@torch.no_grad()
def test_probabilities_are_those_of_the_model_alone(engine):
    ids = engine.encode("Once")
    sampling = SamplingConfig(max_tokens=10, temperature=0.3, top_k=5, logprobs=4, presence_penalty=1.0)
    done = engine.complete([ids], sampling)[0]
    logprobs = engine.model(torch.tensor([[*ids, *done.tokens]]))[0].log_softmax(-1)[len(ids) - 1 : -1]
    assert [each.token for each in done.likelihoods] == list(done.tokens)
    for each, row_V in zip(done.likelihoods, logprobs, strict=True):
        assert each.logprob == pytest.approx(row_V[each.token].item(), abs=1e-5)
        assert [token for token, _ in each.likeliest] == row_V.topk(4).indices.tolist()
        assert [value for _, value in each.likeliest] == pytest.approx(row_V.topk(4).values.tolist(), abs=1e-5)


def test_who_begins_like_someone_who_is_being_read_waits_for_him(long_engine, monkeypatch):
    engine = Engine(long_engine.model, TOKENIZER, EngineConfig(step_tokens=100))
    ids, counts = engine.encode(LONG[0] * 2), []
    read = engine.read
    monkeypatch.setattr(
        engine, "read", lambda shares, guesses: counts.append([s.count for s in shares]) or read(shares, guesses)
    )
    together = engine.complete([ids] * 3, SamplingConfig(max_tokens=4))
    assert sum(map(sum, counts)) < len(ids) + 3 * 64 + 3 * 4
    assert together == [together[0]] * 3


def test_a_cancelled_request_disturbs_no_other_and_frees_its_blocks(long_engine, wanted):
    engine = Engine(long_engine.model, TOKENIZER)
    made = [engine.submit(engine.encode(prompt), sampling) for prompt, sampling in zip(LONG, MANY, strict=True)]
    for step in range(1000):
        if step == 3:
            engine.cancel(made[1])
            engine.cancel(made[4])
        if not engine.step():
            break
    assert [made[1].completion.reason, made[4].completion.reason] == ["cancelled"] * 2
    assert [made[row].completion for row in (0, 2, 3, 5)] == [wanted[row] for row in (0, 2, 3, 5)]
    assert engine.scheduler.blocks.available == engine.scheduler.blocks.count


def test_who_stops_listening_cancels_the_rest(long_engine):
    engine = Engine(long_engine.model, TOKENIZER)
    stream = engine.stream([engine.encode(prompt) for prompt in LONG], SamplingConfig(max_tokens=50))
    next(stream)
    stream.close()
    assert not engine.step() and engine.scheduler.blocks.available == engine.scheduler.blocks.count


def test_beginnings_are_shared_only_under_one_salt(long_engine, monkeypatch):
    engine = Engine(long_engine.model, TOKENIZER)
    ids, counts = engine.encode(LONG[0] * 2), []
    read = engine.read
    monkeypatch.setattr(engine, "read", lambda shares, guesses: counts.append(shares[0].count) or read(shares, guesses))
    for salt in (b"one", b"one", b"other"):
        engine.submit(ids, SamplingConfig(max_tokens=1), salt=salt)
        engine.step()
    assert counts == [len(ids), (len(ids) - 1) % 64 + 1, len(ids)]


WINDOWED = {
    "one window": {"window": 70},
    "and convolutions that look further": {"window": 2, "short_convolution": 4},
}


@pytest.mark.parametrize("config", WINDOWED.values(), ids=list(WINDOWED))
@pytest.mark.parametrize("head_width", [8, 16], ids=["by PyTorch", "by the kernel"])
@torch.no_grad()
def test_a_model_with_windows_keeps_no_more_than_they_see(config, head_width):
    model = random_model(3, tokenizer=TOKENIZER, context=1000, head_width=head_width, **config)
    engine = Engine(model, TOKENIZER, EngineConfig(rows=2, step_tokens=50, cache_tokens=1))
    assert engine.scheduler.blocks.count <= 3
    ids = [[65 + place % 50, *engine.encode("abcdefg " * 30)] for place in range(2)]
    made = [engine.submit(each, SamplingConfig(max_tokens=200, temperature=0)) for each in ids]
    held = 0
    while any(generation.reason is None for generation in made):
        engine.step()
        held = max(held, sum(map(bool, engine.scheduler.blocks.holders)))
    assert held <= 3
    for generation in made:
        logits_TV = model(torch.tensor([generation.tokens]))[0, generation.prompt - 1 : -1]
        assert logits_TV.argmax(-1).tolist() == list(generation.made)


def test_who_insists_on_the_same_bits_is_refused_where_they_are_not_promised():
    def opened(model):
        return Engine(pack(model), TOKENIZER, EngineConfig(exact=True))

    kernels = {"head_width": 16, "tokenizer": TOKENIZER}
    assert opened(random_model(3, **kernels)).inexact is None
    for model, reason in (
        (random_model(3, tokenizer=TOKENIZER), "attention is computed by PyTorch"),
        (random_model(3, **kernels).to(torch.bfloat16), "attention is computed by PyTorch"),
    ):
        with pytest.raises(ConfigError, match=f"exact is set, but {reason}"):
            opened(model)
    with pytest.raises(ConfigError, match="exact is set, but the model's layers are not packed"):
        Engine(random_model(3, **kernels), TOKENIZER, EngineConfig(exact=True))


@torch.no_grad()
def test_texts_become_vectors(engine):
    texts = ["Once", "A longer text", "木"]
    hidden = [engine.model.hidden(torch.tensor([engine.encode(text)]))[0] for text in texts]
    for pooling, wanted in {
        "mean": [x_TD.mean(0) for x_TD in hidden],
        "last": [x_TD[-1] for x_TD in hidden],
        "none": hidden,
    }.items():
        for one, other in zip(engine.embed(texts, pooling=pooling), wanted, strict=True):
            torch.testing.assert_close(one, other)
    with pytest.raises(DataError, match="text 2 has 101 tokens, the model reads 1 to 64"):
        engine.embed(["x", "x" * 100])


def test_two_streams_of_one_engine_take_turns_and_each_hears_its_own(long_engine, wanted):
    engine = Engine(long_engine.model, TOKENIZER)
    streams = [engine.stream([engine.encode(LONG[row])], MANY[row]) for row in (0, 1)]
    heard = [[], []]
    for turn in range(200):
        event = next(streams[turn % 2], None)
        heard[turn % 2] += [] if event is None else [event]
    for row, events in enumerate(heard):
        assert said(events) == (wanted[row].text, wanted[row])


@pytest.mark.parametrize(("kind", "stored"), [("fp32", "float32"), ("fp16", "float16"), ("int8", "int8")])
def test_keys_and_values_are_stored_as_the_config_says(kind, stored, monkeypatch):
    """And as many tokens are kept as the memory holds."""
    model = pack(random_model(3, tokenizer=TOKENIZER, width=32, heads=2, kv_heads=1, head_width=16, context=128))
    monkeypatch.setattr("seedbed.inference.engine.CACHE_BYTES", 2**20)
    engine = Engine(model, TOKENIZER, EngineConfig(cache=kind, rows=10_000))
    cache, plain = engine.cache, Engine(model, TOKENIZER)
    assert cache.keys_LMGPKI.dtype == cache.values_LMGSK.dtype == getattr(torch, stored)
    held = sum(part.nbytes for part in (cache.keys_LMGPKI, cache.values_LMGSK, cache.scales_LM2GS))
    assert abs(held - 2**20) <= 2**14  # a block
    sampling = SamplingConfig(max_tokens=1, temperature=0, logprobs=20)
    one, other = (dict(each.complete([[65] * 90], sampling)[0].likelihoods[0].likeliest) for each in (engine, plain))
    shared = one.keys() & other.keys()
    assert len(shared) > 15 and all(abs(one[token] - other[token]) < 0.05 for token in shared)
    assert (one == other) == (kind == "fp32")
