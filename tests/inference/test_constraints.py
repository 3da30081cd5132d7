"""Whatever a model would like to say: it says what the request wants, in every company, with and without jumps."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema.validators import validator_for

from seedbed.errors import ConfigError, DataError
from seedbed.inference import constraints
from seedbed.inference.config import EngineConfig, SamplingConfig
from seedbed.inference.constraints import Constraint, Grammars
from seedbed.inference.engine import Engine
from seedbed.model.packed.pack import pack
from tests.inference.schemas import SCHEMAS, record
from tests.inference.small_tokenizers import TOKENIZERS
from tests.random_models import random_model

OUTPUTS = 40
"""Of each schema: 2,000 in all."""

CONSTRAINTS = {
    "json_schema": {"json_schema": SCHEMAS["an object with what may be left out"]},
    "regex": {"regex": r"(name|nameless|[a-f]{2}): (true|false)( and [0-9]{1,3})?"},
    "choice": {"choice": ["the name", "the names", "the rose is red", "a"]},
    "lark": {"grammar": 'start: "(" item ("," item){0,2} ") done"\nitem: WORD | "[" WORD "]"\nWORD: /[a-d]{1,3}/'},
    "gbnf": {"grammar": 'root ::= "name: " ("red" | "green") ("!" | "?"){1,3}'},
}
TOLD = {
    "regex": lambda text: re.fullmatch(CONSTRAINTS["regex"]["regex"], text),
    "choice": lambda text: text in CONSTRAINTS["choice"]["choice"],
    "json_schema": lambda text: not list(errors(CONSTRAINTS["json_schema"]["json_schema"], text)),
    "lark": lambda text: re.fullmatch(r"\((([a-d]{1,3}|\[[a-d]{1,3}\])(,|(?=\)))){1,3}\) done", text),
    "gbnf": lambda text: re.fullmatch(r"name: (red|green)[!?]{1,3}", text),
}


def errors(schema, text):
    kind = validator_for(schema, default=validator_for({"$schema": "https://json-schema.org/draft/2020-12/schema"}))
    return kind(schema, format_checker=kind.FORMAT_CHECKER).iter_errors(json.loads(text))


def engine_of(name, **config):
    tokenizer = TOKENIZERS[name]
    return Engine(pack(random_model(3, tokenizer=tokenizer, heads=2, kv_heads=1, head_width=16, **config)), tokenizer)


@pytest.fixture(scope="module", params=list(TOKENIZERS))
def any_engine(request):
    return engine_of(request.param, context=512)


@pytest.fixture(scope="module")
def engine():
    return engine_of("bytes", context=1024)


@pytest.fixture(scope="module")
def merging():
    return engine_of("byte_pair", context=1024)


def complete(engine, n=1, **settings):
    sampling = SamplingConfig(**{"max_tokens": 400, "temperature": 1, **settings})
    return engine.complete([engine.tokenizer.encode("Once")], sampling, n=n)


@pytest.mark.parametrize("name", SCHEMAS)
def test_of_two_thousand_outputs_of_fifty_schemas_each_is_valid(name, engine, merging):
    assert len(SCHEMAS) == 50
    for each in (engine, merging):
        for said in complete(each, n=OUTPUTS // 2, max_tokens=1000, json_schema=SCHEMAS[name]):
            assert said.reason == "end"
            assert list(errors(SCHEMAS[name], said.text)) == [], said.text


def test_what_is_valid_differs():
    """Outputs are the model's: not one and the same text for each schema."""
    engine = engine_of("bytes", context=1024)
    said = [complete(engine, n=5, json_schema=SCHEMAS[name]) for name in ("a person", "an order", "a text")]
    assert all(len({each.text for each in some}) == 5 for some in said)


def schemas():
    """Schemas that llguidance takes, of every shape."""
    small = st.integers(-50, 50)
    numbers = st.tuples(small, small).map(lambda pair: {"type": "integer", "minimum": min(pair), "maximum": max(pair)})
    texts = st.tuples(st.integers(0, 3), st.integers(0, 3)).map(
        lambda pair: {"type": "string", "minLength": min(pair), "maxLength": max(pair)}
    )
    constants = st.lists(st.one_of(st.text(max_size=3), small, st.none(), st.booleans()), min_size=1, max_size=3)
    plain = st.one_of(numbers, texts, constants.map(lambda values: {"enum": values}), st.just({"type": "boolean"}))
    names = st.text(max_size=3)

    def deeper(inner):
        objects = st.dictionaries(names, st.tuples(inner, st.booleans()), max_size=3).map(
            lambda parts: record(
                [name for name, (_, must) in parts.items() if must], **{k: v for k, (v, _) in parts.items()}
            )
        )
        lists = st.tuples(inner, st.integers(0, 2)).map(
            lambda pair: {"type": "array", "items": pair[0], "maxItems": pair[1]}
        )
        return st.one_of(objects, lists, st.lists(inner, min_size=1, max_size=3).map(lambda some: {"anyOf": some}))

    return st.recursive(plain, deeper, max_leaves=6)


@settings(max_examples=60, deadline=None)
@given(schema=schemas(), seed=st.integers(0, 100))
def test_any_schema_is_kept_to(schema, seed, engine):
    said = complete(engine, json_schema=schema, seed=seed)[0]
    assert said.reason == "end" and list(errors(schema, said.text)) == []


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(st.text(max_size=6), min_size=1, max_size=5), seed=st.integers(0, 100))
def test_a_choice_is_one_of_the_texts_whatever_they_hold(texts, seed, merging):
    said = complete(merging, choice=texts, seed=seed)[0]
    assert said.text in texts and said.reason == "end"


def test_each_choice_is_made_by_some_number(engine):
    texts = CONSTRAINTS["choice"]["choice"]
    assert {said.text for said in complete(engine, n=60, choice=texts)} == set(texts)


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_every_tokenizer_keeps_to_every_constraint(name, any_engine):
    for said in complete(any_engine, n=8, **CONSTRAINTS[name]):
        assert said.reason == "end" and TOLD[name](said.text), said
        special = set(any_engine.tokenizer.special_ids.values())
        assert not special & set(said.tokens)


WAYS = {
    "greedy": {"temperature": 0},
    "filters": {"top_k": 5, "top_p": 0.8, "min_p": 0.05, "typical_p": 0.9},
    "penalties": {"repetition_penalty": 1.5, "presence_penalty": 1.0, "frequency_penalty": 1.0},
    "bias": {"logit_bias": {str(byte): -100.0 for byte in b'{}"name'}},
    "cold": {"temperature": 1e-300},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CONSTRAINTS)
def test_every_way_to_choose_keeps_to_it(name, way, engine):
    for said in complete(engine, n=2, max_tokens=300, **CONSTRAINTS[name], **WAYS[way]):
        assert said.reason == "end" and TOLD[name](said.text), said


@pytest.mark.parametrize("name", [*CONSTRAINTS, "just one", "any of objects", "a tree", "a person", "an order"])
def test_tokens_are_the_same_with_and_without_jumps(name, engine, merging):
    constraint = CONSTRAINTS.get(name) or {"json_schema": SCHEMAS[name]}
    for each in (engine, merging):
        for way in ({}, WAYS["penalties"]):
            jumping = complete(each, n=4, **constraint, **way)
            stepping = complete(each, n=4, logprobs=1, **constraint, **way)
            assert [said.tokens for said in jumping] == [said.tokens for said in stepping]
            assert [said.reason for said in jumping] == [said.reason for said in stepping]
            assert all(said.jumped == 0 and len(said.likelihoods) >= len(said.tokens) for said in stepping)
    assert sum(said.jumped for said in complete(engine, n=4, **constraint)) > 0


def test_a_jump_takes_no_step():
    engine = engine_of("bytes", context=256)
    said = {"const": "one and the same text, said by nobody"}
    generation = engine.submit([65], SamplingConfig(max_tokens=200, json_schema=said))
    steps = 0
    while generation.reason is None:
        engine.step()
        steps += 1
    assert steps == 1 and generation.text.whole == json.dumps(said["const"])
    assert generation.jumped == len(generation.made) - 1
    assert generation.completion.jumped == generation.jumped


def test_probabilities_stay_the_models_own(engine):
    said = complete(engine, logprobs=3, json_schema={"enum": ["aa", "ab"]}, temperature=0)[0]
    free = complete(engine, logprobs=3, max_tokens=1, temperature=0)[0]
    assert said.likelihoods[0].likeliest == free.likelihoods[0].likeliest
    assert said.likelihoods[0].token == ord('"') and said.likelihoods[0].logprob < -0.5


@pytest.mark.parametrize("logprobs", [None, 0])
def test_a_limit_holds_inside_a_jump(logprobs, engine):
    constraint = {"json_schema": SCHEMAS["an object"], "seed": 4, "logprobs": logprobs}
    whole = complete(engine, **constraint)[0]
    for limit in range(1, len(whole.tokens)):
        said = complete(engine, **constraint, max_tokens=limit)[0]
        assert (said.tokens, said.reason) == (whole.tokens[:limit], "length")
    assert complete(engine, **constraint, max_tokens=len(whole.tokens))[0].reason == "end"


@pytest.mark.parametrize("logprobs", [None, 0])
def test_a_stop_text_holds_inside_a_jump(logprobs, engine):
    said = complete(engine, json_schema=SCHEMAS["an object"], stop=['me":'], logprobs=logprobs)[0]
    assert (said.text, said.reason, len(said.tokens)) == ('{"na', "stop", len('{"name":'))


def test_the_context_ends_a_jump():
    engine = engine_of("bytes", context=64)
    generation = engine.submit([65] * 40, SamplingConfig(max_tokens=100, json_schema={"const": "x" * 99}))
    while generation.reason is None:
        engine.step()
    assert generation.reason == "length" and len(generation.tokens) == 64


def test_where_the_grammar_may_end_the_model_ends_it(engine):
    """Its end tokens are possible there, and only there."""
    ends = {str(id): 100.0 for id in engine.tokenizer.end_ids}
    assert complete(engine, regex="(ab){2,9}", logit_bias=ends)[0].text == "abab"
    never = dict.fromkeys(ends, -100.0)
    assert complete(engine, regex="(ab){2,9}", logit_bias=never)[0].text == "ab" * 9


def test_a_tokenizer_without_an_end_says_all_there_is():
    engine = engine_of("bytes alone", context=64)
    assert complete(engine, regex="(ab){2,9}")[0].text == "ab" * 9


def test_who_may_say_nothing_fails_alone(engine):
    """The schema wants the same three tokens twice, the other setting forbids it."""
    schema = {"const": ["abc", "abc"]}
    failing = engine.submit([65], SamplingConfig(json_schema=schema, no_repeat_ngram=3))
    beside = engine.submit([65], SamplingConfig(json_schema=schema, max_tokens=50))
    while beside.reason is None or failing.reason is None:
        engine.step()
    assert failing.reason == "error" and "forbids is everything" in failing.error.problem
    assert beside.text.whole == '["abc","abc"]'
    with pytest.raises(DataError, match="no token is possible"):
        complete(engine, json_schema=schema, no_repeat_ngram=3)


def test_what_the_tokenizer_cannot_say_is_told():
    engine = engine_of("characters", context=64)
    assert complete(engine, choice=["木"])[0].text == "木"
    with pytest.raises(DataError, match="choice has '水', for which the tokenizer has no tokens"):
        complete(engine, choice=["the", "水"])
    with pytest.raises(DataError, match="regex cannot be kept to: the tokenizer has no token for what must come next"):
        complete(engine, regex="水+")
    with pytest.raises(DataError, match="as its constraint wants: the tokenizer has no token for what must come next"):
        complete(engine, regex="[ab]{2}水")
    assert set(complete(engine, regex="[b水]{4}")[0].text) == {"b"}


def test_what_is_beyond_the_models_vocabulary_is_never_said():
    """A model of 200 ids with the tokenizer of 263: the letters behind are no tokens of it."""
    tokenizer = TOKENIZERS["bytes"]
    grammars = Grammars(tokenizer, 110)
    constraint = grammars.constraint(SamplingConfig(regex="[a-z]+"))
    assert constraint.possible().nonzero()[0].tolist() == list(range(ord("a"), 110))
    with pytest.raises(DataError, match="no token for what must come next"):
        grammars.check(SamplingConfig(regex="z"))


def test_a_grammar_that_grows_too_complex_ends_its_request_alone(monkeypatch):
    """llguidance answers with the end of the text then, which is not true."""
    monkeypatch.setattr(constraints, "MOST_STATES", 24)
    engine = engine_of("bytes", context=128)
    with pytest.raises(DataError, match=r"as its constraint wants: .*states"):
        complete(engine, regex="([a-m]{3}|[n-z]{4}|[0-9]{5})+!")
    assert not engine.grammars._kept  # the next one begins with an automaton that has not grown


def test_a_grammar_is_compiled_once_and_the_oldest_goes(monkeypatch):
    grammars = Grammars(TOKENIZERS["bytes"], 256)
    made = []
    compiling = Grammars._compile
    monkeypatch.setattr(Grammars, "_compile", lambda self, *said: made.append(said) or compiling(self, *said))
    for _ in range(3):
        grammars.check(SamplingConfig(regex="a"))
        grammars.check(SamplingConfig(json_schema={"type": "null"}))
        grammars.check(SamplingConfig(json_schema='{"type": "null"}'))
    assert made == [("regex", "a"), ("json_schema", '{"type": "null"}')]
    for number in range(constraints.MOST_GRAMMARS):
        grammars.check(SamplingConfig(regex=f"b{number}"))
    assert len(grammars._kept) == constraints.MOST_GRAMMARS
    grammars.check(SamplingConfig(regex="a"))
    assert made.count(("regex", "a")) == 2


def test_two_of_one_grammar_do_not_hear_each_other():
    grammars = Grammars(TOKENIZERS["bytes"], 256)
    one, other = (grammars.constraint(SamplingConfig(regex="ab|cd")) for _ in range(2))
    assert isinstance(one, Constraint) and list(one.add(ord("a"))) == [ord("b")]
    assert one.complete and not other.complete
    assert other.possible().nonzero()[0].tolist() == [ord("a"), ord("c")]


def test_a_grammar_of_many_levels_does_not_end_the_process():
    """The compiler would overflow the stack of this thread."""
    code = """
import threading
from seedbed.inference.config import SamplingConfig
from seedbed.inference.constraints import Grammars
from seedbed.tokenizers import bytes
grammars = Grammars(bytes.build(), 256)
rules = "start: a0\\n" + "".join(f"a{i}: a{i + 1}\\n" for i in range(1200)) + 'a1200: "x"'
threading.stack_size(256 << 10)
thread = threading.Thread(target=lambda: grammars.check(SamplingConfig(grammar=rules)) or print("compiled"))
thread.start()
thread.join()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "compiled\n"), done.stderr


def test_without_llguidance_it_is_said_how_to_bring_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(ConfigError, match=r"regex needs the package llguidance.*\npip install -e"):
        Grammars(TOKENIZERS["bytes"], 256).check(SamplingConfig(regex="a"))
    Grammars(TOKENIZERS["bytes"], 256).check(SamplingConfig())


def test_preempted_and_shared_beginnings_change_nothing():
    """Little room, long prompts that begin alike, and jumps across blocks."""
    tokenizer = TOKENIZERS["bytes"]
    model = pack(random_model(3, tokenizer=tokenizer, heads=2, kv_heads=1, head_width=16, context=512))
    prompt = tokenizer.encode("x" * 130)
    sampling = SamplingConfig(max_tokens=300, temperature=1, json_schema=SCHEMAS["a person"])
    alone = [Engine(model, tokenizer).complete([prompt], sampling, n=1)[0]]
    crowded = Engine(model, tokenizer, EngineConfig(rows=6, step_tokens=50, cache_tokens=640))
    assert crowded.complete([prompt] * 6, sampling) == alone * 6
