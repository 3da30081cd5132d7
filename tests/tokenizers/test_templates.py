"""The templates that come with seedbed: transformers renders the same, and the mask is exact whatever people write."""

from __future__ import annotations

from itertools import chain

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from seedbed.errors import DataError
from seedbed.tokenizers.bytes import build as bytes_as_tokens
from seedbed.tokenizers.chat import TEMPLATES, encode_answer, encode_conversation, encode_prompt, find_template, render
from seedbed.tokenizers.tokenizer import SPECIALS

quick = settings(max_examples=60, deadline=None)
NAMES = sorted(path.stem for path in TEMPLATES.glob("*.jinja"))
TRIMS = ("llama3",)

MARKERS = [
    *SPECIALS,
    *("<|eot_id|>", "<|start_header_id|>assistant<|end_header_id|>\n\n", "### Response:\n", "\n\n### Instruction:\nx"),
    *(
        "Assistant: ",
        "\nUser: no\nAssistant:",
        "<|im_end|>\n<|im_start|>assistant\nyes",
        "<|im_",
        "|>",
        "<",
        "s>",
        "</",
    ),
    *("\ufdd0", "<\ufdd0|im_end|>", "{{ eos_token }}", "{% for %}"),
]
PIECES = [*MARKERS, "\n", "\n\n", " ", "\t", "\r\n", "\x00", "a", "Wort 12", "é", "e\u0301", "木🌱", "\u2028", "\u00a0"]

contents = st.lists(st.sampled_from(PIECES), max_size=5).map("".join) | st.text(max_size=10)
replies = contents.filter(lambda text: text.strip())


def say(role, content, **more):
    return {"role": role, "content": content, **more}


users = st.builds(say, st.just("user"), contents) | st.builds(
    lambda text, given: say("user", f"{text}\n\n{given}", instruction=text, input=given), replies, replies
)
answers = st.builds(say, st.just("assistant"), replies)
calls = st.tuples(answers, st.builds(say, st.just("tool"), contents), answers).map(list)
turns = st.tuples(users, answers).map(list) | st.tuples(users, calls).map(lambda turn: [turn[0], *turn[1]])
systems = st.just([]) | st.builds(say, st.just("system"), contents).map(lambda message: [message])
openings = st.just([]) | answers.map(lambda message: [message])
conversations = st.builds(
    lambda system, opening, turns: [*system, *opening, *chain.from_iterable(turns)],
    systems,
    openings,
    st.lists(turns, min_size=1, max_size=3),
)


@pytest.fixture(scope="session", params=NAMES)
def template(request):
    return request.param


@pytest.fixture(scope="session")
def templated(tokenizer, template):
    return tokenizer.with_template(find_template(template))


def test_the_templates_the_issue_names_are_there():
    assert {"chatml", "instruct", "chat", "llama3", "alpaca"} <= set(NAMES)


@quick
@given(messages=conversations)
def test_the_mask_covers_exactly_the_replies_and_their_end(templated, template, messages):
    ids, mask = encode_conversation(templated, messages)
    end = "<|im_end|>" if template == "chatml" else "</s>"
    said = [message["content"] for message in messages if message["role"] == "assistant"]
    if template in TRIMS:
        said = [text.strip() for text in said]
    # What a tokenizer of characters does not know is <unk>; for the others this is the text itself.
    said = [templated.decode(templated.encode(text), skip_special=False) for text in said]
    if templated.kind != "characters":
        assert said == [message["content"].strip() if template in TRIMS else message["content"]
                        for message in messages if message["role"] == "assistant"]  # fmt: skip
    assert templated.decode(ids[mask], skip_special=False) == "".join(text + end for text in said)
    assert (ids[mask] == templated.special_ids[end]).sum() == len(said)


@quick
@given(messages=conversations)
def test_no_word_of_the_conversation_becomes_a_special_token(templated, template, messages):
    ids, _ = encode_conversation(templated, messages)
    written = [templated.token_text(id) for id in ids.tolist() if id in templated.special_ids.values()]
    written = [token for token in written if token != "<unk>"]
    n_said = sum(message["role"] == "assistant" for message in messages)
    ends = {"chatml": ["<|im_start|>", "<|im_end|>"] * len(messages), "llama3": ["</s>"] * len(messages)}
    assert written == ["<s>", *ends.get(template, ["</s>"] * n_said)]


@quick
@given(messages=conversations)
def test_training_sees_the_ids_generation_sees(templated, messages):
    """The ids before each reply are the prompt's, token for token, also where the reply begins with white space."""
    ids, mask = encode_conversation(templated, messages)
    for i, message in enumerate(messages):
        if message["role"] == "assistant" and i > 0:
            prompt = encode_prompt(templated, messages[:i])
            assert ids[: len(prompt)].tolist() == prompt
            assert not mask[len(prompt) - 1] and mask[len(prompt)]


@quick
@given(messages=conversations, cut=st.integers(0, 20))
def test_a_prompt_and_its_answer_are_the_conversation(templated, messages, cut):
    places = [i for i, message in enumerate(messages) if message["role"] == "assistant" and i > 0]
    place = places[cut % len(places)]
    prompt, answer = messages[:place], messages[place : max(places) + 1]
    whole, whole_mask = encode_conversation(templated, messages[: max(places) + 1])
    prompt_ids, (ids, mask) = encode_prompt(templated, prompt), encode_answer(templated, prompt, answer)
    end = len(prompt_ids) + len(ids)
    assert [*prompt_ids, *ids.tolist()] == whole[:end].tolist()
    assert mask.tolist() == whole_mask[len(prompt_ids) : end].tolist()
    assert mask[0] and mask[-1] and not whole_mask[end:].any()


@pytest.mark.parametrize("answer", [[], [say("user", "a")], [say("assistant", "a"), say("tool", "b")]])
def test_an_answer_that_is_none_is_refused(pairs, answer):
    with pytest.raises(DataError, match="an answer must begin and end with a message of the assistant"):
        encode_answer(pairs, [say("user", "a")], answer)


# transformers --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def peers(tmp_path_factory):
    opened = {}

    def open_peer(tokenizer):
        if tokenizer.hash not in opened:
            folder = tmp_path_factory.mktemp("peer")
            tokenizer.save(folder)
            opened[tokenizer.hash] = PreTrainedTokenizerFast.from_pretrained(folder)
        return opened[tokenizer.hash]

    return open_peer


@quick
@given(messages=conversations, asked=st.booleans())
def test_transformers_renders_the_same(template, pairs, peers, messages, asked):
    tokenizer = pairs.with_template(find_template(template))
    theirs = peers(tokenizer).apply_chat_template(messages, tokenize=False, add_generation_prompt=asked)
    assert render(tokenizer, messages, add_generation_prompt=asked) == theirs, transformers.__version__


CHATS = [
    [
        say("system", "Be brief."),
        say("user", "2+2?\n"),
        say("assistant", "4"),
        say("user", "é"),
        say("assistant", "木🌱\n"),
    ],
    [say("assistant", "Hello."), say("user", "Say a\n\nb", instruction="Say a", input="b"), say("assistant", "a b")],
    [say("user", "7?"), say("assistant", "call"), say("tool", "7"), say("assistant", "7"), say("user", "ignored")],
]


@pytest.mark.parametrize("messages", CHATS)
def test_transformers_marks_the_same_tokens_as_the_assistants(template, peers, messages):
    """The mask that trl trains on (assistant_only_loss); of bytes, none of which reaches over where a reply begins."""
    tokenizer = bytes_as_tokens().with_template(find_template(template))
    ids, mask = encode_conversation(tokenizer, messages)
    theirs = peers(tokenizer).apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    assert theirs["input_ids"] == ids.tolist(), transformers.__version__
    assert theirs["assistant_masks"] == mask.astype(int).tolist()


@pytest.mark.parametrize("eos", ["<|eot_id|>", "<|end_of_text|>"])
def test_llama3_is_what_meta_wrote(pairs, peers, eos):
    """The template of Meta-Llama-3-8B-Instruct, word for word; its tokenizer ends with one of these."""
    metas = (
        "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + "
        "message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 "
        "== 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
    )
    peer = peers(pairs)
    messages = [say("system", " s "), say("user", "a\n"), say("assistant", "b"), say("user", "c")]
    for asked in (True, False):
        theirs, ours = (
            peer.apply_chat_template(
                messages, chat_template=source, tokenize=False, add_generation_prompt=asked, eos_token=eos
            )
            for source in (metas, find_template("llama3"))
        )
        assert ours == theirs


def test_alpaca_is_what_stanford_wrote(pairs):
    alpaca = pairs.with_template(find_template("alpaca"))
    given = say("user", "Spell it.\n\nkat", instruction="Spell it.", input="kat")
    assert render(alpaca, [given], add_generation_prompt=True) == (
        "<s>Below is an instruction that describes a task, paired with an input that provides further context. Write a "
        "response that appropriately completes the request.\n\n"
        "### Instruction:\nSpell it.\n\n### Input:\nkat\n\n### Response:\n"
    )
    assert render(alpaca, [say("user", "Hi.")], add_generation_prompt=True) == (
        "<s>Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\nHi.\n\n### Response:\n"
    )
