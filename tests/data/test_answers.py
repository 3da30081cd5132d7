"""Prompts and answers as tokens: one prompt for both answers, nothing cut in silence."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seedbed.data.answers import AnswerEncoder, joined
from seedbed.data.preferences import Judgement, Preference, Problem
from seedbed.errors import ConfigError, DataError
from seedbed.tokenizers import byte_pair, characters
from seedbed.tokenizers.bytes import build
from seedbed.tokenizers.chat import encode_conversation, encode_prompt, find_template

PAIRS = byte_pair.train(["the seed of a small tree lies in dark soil and waits for rain, " * 5], 305)
texts = st.text(min_size=1, max_size=12) | st.sampled_from(["\n\nseed", " tree", "<|im_end|>", "Assistant: ", "rain,"])


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def preference(prompt, chosen, rejected, margin=None):
    if isinstance(prompt, str):
        prompt = [user(prompt)]
    return Preference("p.jsonl, row 7", prompt, [assistant(chosen)], [assistant(rejected)], margin)


def only(encoded):
    (one,) = encoded
    return one


@pytest.mark.parametrize("template", ["chatml", "instruct", "chat", "alpaca"])
@settings(max_examples=50, deadline=None)
@given(turns=st.lists(texts, max_size=4), asked=texts, chosen=texts, rejected=texts)
def test_each_answer_follows_the_same_prompt_token_for_token(template, turns, asked, chosen, rejected):
    """What is trained is what `encode_conversation` gives; of it only the answer counts, no earlier reply."""
    tokenizer = PAIRS.with_template(find_template(template))
    earlier = [(user, assistant)[i % 2](text) for i, text in enumerate(turns[: len(turns) // 2 * 2])]
    row = preference([*earlier, user(asked)], chosen, rejected + "!")
    encoded = only(AnswerEncoder(tokenizer, 10_000).preferences([row]))
    assert encoded.prompt.tolist() == encode_prompt(tokenizer, row.prompt)
    for answer, messages in ((encoded.chosen, row.chosen), (encoded.rejected, row.rejected)):
        ids, mask = joined(encoded.prompt, answer)
        whole, _ = encode_conversation(tokenizer, [*row.prompt, *messages])
        assert ids.tolist() == whole[: len(ids)].tolist()
        end = "<|im_end|>" if template == "chatml" else "</s>"
        assert tokenizer.decode(ids[mask], skip_special=False) == messages[0]["content"] + end
        assert not mask[: len(encoded.prompt)].any() and mask[len(encoded.prompt) :].all()


def test_prompt_and_answer_never_share_a_token():
    """In a text, " tree" is one token; where "Assistant: " ends and an answer begins, the space stays before."""
    tokenizer = PAIRS.with_template(find_template("chat"))
    assert len(tokenizer.encode(" tree")) == 1
    encoded = only(AnswerEncoder(tokenizer, 100).preferences([preference("a", "tree", "seed")]))
    assert tokenizer.decode(encoded.prompt).endswith("Assistant: ")
    assert tokenizer.decode(encoded.chosen[0], skip_special=False) == "tree</s>"


def test_a_margin_a_label_and_a_problem_go_along():
    encoder = AnswerEncoder(build(), 100)
    assert only(encoder.preferences([preference("a", "b", "c", margin=0.5)])).margin == 0.5
    judged = only(encoder.judgements([Judgement("j", [user("a")], [assistant("b")], False)]))
    assert judged.label is False and encoder.tokenizer.decode(judged.completion[0]) == "b"
    problem = Problem("q", [user("a")], "4", "exact", ())
    asked = only(encoder.problems([problem]))
    assert asked.problem is problem and asked.prompt.tolist() == encode_prompt(encoder.tokenizer, [user("a")])
    assert encoder.counts == {"kept": 3}


# What is too long ----------------------------------------------------------------------------------------------------

LONG = preference("0123456789" * 3, "chosen", "no")
TOKENS = 1 + len("0user\n") + 30 + 1 + len("\n0assistant\n") + len("chosen") + 1
"""Of bytes: each special token is one."""


def test_what_just_fits_is_whole():
    encoder = AnswerEncoder(build(), TOKENS)
    encoded = only(encoder.preferences([LONG]))
    assert len(encoded.prompt) + len(encoded.chosen[0]) == TOKENS
    assert encoder.counts == {"kept": 1}


def test_what_is_too_long_is_an_error_that_names_the_row():
    with pytest.raises(DataError, match=f"p.jsonl, row 7: it has {TOKENS} tokens, {TOKENS - 1} are allowed"):
        list(AnswerEncoder(build(), TOKENS - 1).preferences([LONG]))


def test_what_is_too_long_is_dropped_and_counted():
    encoder = AnswerEncoder(build(), TOKENS - 1, overlong="drop")
    assert len(list(encoder.preferences([LONG, preference("a", "b", "c")]))) == 1
    assert encoder.counts == {"too long": 1, "kept": 1}


@pytest.mark.parametrize("less", [1, 5, TOKENS - 10])
def test_a_prompt_loses_its_beginning_but_the_first_token_and_answers_nothing(less):
    encoder = AnswerEncoder(build(), TOKENS - less, overlong="truncate")
    encoded = only(encoder.preferences([LONG]))
    whole = encode_prompt(encoder.tokenizer, LONG.prompt)
    assert encoded.prompt.tolist() == [whole[0], *whole[1 + less :]]
    assert len(encoded.prompt) + len(encoded.chosen[0]) == TOKENS - less
    assert [encoder.tokenizer.decode(ids) for ids, _ in (encoded.chosen, encoded.rejected)] == ["chosen", "no"]
    assert encoder.counts == {"truncated": 1, "kept": 1}


def test_a_row_whose_answer_alone_is_too_long_is_dropped():
    encoder = AnswerEncoder(build(), len("chosen") + 2, overlong="truncate")  # its end and <s>: no prompt is left
    assert not list(encoder.preferences([LONG]))
    assert not list(encoder.judgements([Judgement("j", LONG.prompt, LONG.chosen, True)]))
    assert encoder.counts == {"too long": 2}


def test_a_length_that_holds_nothing_is_refused():
    with pytest.raises(ConfigError, match="length must be at least 2, got 1"):
        AnswerEncoder(build(), 1)


# What teaches nothing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokenizer", "chosen", "rejected"),
    [
        (build().with_template(find_template("llama3")), "a", " a"),
        (characters.train(["abc user assistant\n"]), "x", "y"),
    ],
)
def test_answers_that_are_the_same_tokens_are_an_error_or_counted(tokenizer, chosen, rejected):
    row = preference("a", chosen, rejected)
    with pytest.raises(DataError, match=r"p\.jsonl, row 7: chosen and rejected are the same tokens"):
        list(AnswerEncoder(tokenizer, 100).preferences([row]))
    encoder = AnswerEncoder(tokenizer, 100, useless="drop")
    assert not list(encoder.preferences([row]))
    assert encoder.counts == {"equal answers": 1}


def test_a_template_that_cannot_render_a_row_names_it():
    refusing = build().with_template("{{ raise_exception('no') }}")
    with pytest.raises(DataError, match=r"p\.jsonl, row 7: the chat template refuses the conversation: no"):
        list(AnswerEncoder(refusing, 100).preferences([LONG]))


def test_only_the_assistants_words_of_an_answer_with_tools_count():
    answer = [assistant("call"), {"role": "tool", "content": "4"}, assistant("four")]
    row = Judgement("j", [user("2+2?")], answer, True)
    tokenizer = build()
    ids, mask = only(AnswerEncoder(tokenizer, 200).judgements([row])).completion
    assert tokenizer.decode(ids[mask], skip_special=False) == "call<|im_end|>four<|im_end|>"
    assert np.flatnonzero(~mask).size > 0 and "tool\n4" in tokenizer.decode(ids[~mask])
