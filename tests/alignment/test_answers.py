"""Prompts and answers as tokens: one prompt for all answers, nothing cut in silence."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seedbed.alignment.answers import encode_answers, fit, refuse_alike
from seedbed.errors import DataError
from seedbed.tokenizers import byte_pair, characters
from seedbed.tokenizers.bytes import build
from seedbed.tokenizers.chat import encode_conversation, encode_prompt, find_template

PAIRS = byte_pair.train(["the seed of a small tree lies in dark soil and waits for rain, " * 5], 305)
texts = st.text(min_size=1, max_size=12) | st.sampled_from(["\n\nseed", " tree", "<|im_end|>", "Assistant: ", "rain,"])


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def encoded(tokenizer, prompt, *answers):
    return encode_answers(tokenizer, "p.jsonl, row 7", [user(prompt)], [[assistant(answer)] for answer in answers])


@pytest.mark.parametrize("template", ["chatml", "instruct", "chat", "alpaca"])
@settings(max_examples=50, deadline=None)
@given(turns=st.lists(texts, max_size=4), asked=texts, chosen=texts, rejected=texts)
def test_each_answer_follows_the_same_prompt_token_for_token(template, turns, asked, chosen, rejected):
    """What is trained is what `encode_conversation` gives; of it only the answer counts, no earlier reply."""
    tokenizer = PAIRS.with_template(find_template(template))
    earlier = [(user, assistant)[i % 2](text) for i, text in enumerate(turns[: len(turns) // 2 * 2])]
    prompt, answers = [*earlier, user(asked)], ([assistant(chosen)], [assistant(rejected)])
    row = encode_answers(tokenizer, "row", prompt, answers)
    assert row.prompt.tolist() == encode_prompt(tokenizer, prompt)
    for answer, messages in zip(row.answers, answers, strict=True):
        ids, mask = row.whole(answer)
        whole, _ = encode_conversation(tokenizer, [*prompt, *messages])
        assert ids.tolist() == whole[: len(ids)].tolist()
        end = "<|im_end|>" if template == "chatml" else "</s>"
        assert tokenizer.decode(ids[mask], skip_special=False) == messages[0]["content"] + end
        assert not mask[: len(row.prompt)].any() and mask[len(row.prompt) :].all()


def test_prompt_and_answer_never_share_a_token():
    """In a text, " tree" is one token; where "Assistant: " ends and an answer begins, the space stays before."""
    tokenizer = PAIRS.with_template(find_template("chat"))
    assert len(tokenizer.encode(" tree")) == 1
    row = encoded(tokenizer, "a", "tree")
    assert tokenizer.decode(row.prompt).endswith("Assistant: ")
    assert tokenizer.decode(row.answers[0][0], skip_special=False) == "tree</s>"


def test_a_template_that_cannot_render_a_row_names_it():
    refusing = build().with_template("{{ raise_exception('no') }}")
    with pytest.raises(DataError, match=r"p\.jsonl, row 7: the chat template refuses the conversation: no"):
        encoded(refusing, "a", "b")


def test_only_the_assistants_words_of_an_answer_with_tools_count():
    tokenizer, answer = build(), [assistant("call"), {"role": "tool", "content": "4"}, assistant("four")]
    ((ids, mask),) = encode_answers(tokenizer, "row", [user("2+2?")], [answer]).answers
    assert tokenizer.decode(ids[mask], skip_special=False) == "call<|im_end|>four<|im_end|>"
    assert np.flatnonzero(~mask).size > 0 and "tool\n4" in tokenizer.decode(ids[~mask])


# What is too long ----------------------------------------------------------------------------------------------------

LONG = encoded(build(), "0123456789" * 3, "chosen", "no")
TOKENS = len(LONG.prompt) + len("chosen") + 1


@pytest.mark.parametrize("fate", ["error", "drop", "truncate"])
def test_what_just_fits_is_whole(fate):
    counts = Counter()
    assert fit(LONG, TOKENS, fate, counts) is LONG and not counts


def test_what_is_too_long_is_an_error_that_names_the_row():
    with pytest.raises(DataError, match=rf"p\.jsonl, row 7: its prompt has {len(LONG.prompt)} tokens and its longest"):
        fit(LONG, TOKENS - 1, "error", Counter())


@pytest.mark.parametrize(("length", "reason"), [(TOKENS - 1, "overlong answer"), (TOKENS - 7, "overlong prompt")])
def test_what_is_too_long_is_dropped_and_counted(length, reason):
    counts = Counter()
    assert fit(LONG, length, "drop", counts) is None and counts == {reason: 1}


def test_an_answer_loses_its_end_and_the_prompt_nothing():
    counts = Counter()
    cut = fit(LONG, TOKENS - 2, "truncate", counts)
    assert cut.prompt.tolist() == LONG.prompt.tolist() and counts == {"truncated": 1}
    assert [build().decode(ids, skip_special=False) for ids, _ in cut.answers] == ["chose", "no<|im_end|>"]


# What teaches nothing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokenizer", "chosen", "rejected"),
    [
        (build().with_template(find_template("llama3")), "a", " a"),
        (characters.train(["abc user assistant\n"]), "x", "y"),
    ],
)
def test_answers_that_are_the_same_tokens_are_an_error_or_counted(tokenizer, chosen, rejected):
    row, counts = encoded(tokenizer, "a", chosen, rejected), Counter()
    with pytest.raises(DataError, match=r"p\.jsonl, row 7: its answers are the same tokens"):
        refuse_alike(row, "error", counts)
    assert refuse_alike(row, "drop", counts) and counts == {"equal answers": 1}
