"""What `generate` and `chat` print and return."""

from __future__ import annotations

import io
import json

import pytest

from seedbed.cli import main
from seedbed.configuration import from_arguments
from seedbed.errors import ConfigError, DataError
from seedbed.inference.chat import chat, recent
from seedbed.inference.config import ChatConfig, GenerateConfig, SamplingConfig
from seedbed.inference.engine import Engine
from seedbed.inference.generate import DEMO, generate, read_prompts
from seedbed.tokenizers import bytes as byte_tokenizer
from seedbed.tokenizers.chat import encode_prompt
from tests.random_adapters import random_adapter
from tests.random_models import random_model, saved

TOKENIZER = byte_tokenizer.build()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    model = random_model(3, tokenizer=TOKENIZER, context=256)
    return saved(tmp_path_factory.mktemp("run") / "model", model, TOKENIZER)


@pytest.fixture(scope="module")
def engine(folder):
    return Engine.load(folder)


def test_the_command_line_says_what_may_be_said(folder, tmp_path, capsys):
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    schema |= {"additionalProperties": False}
    (tmp_path / "schema.json").write_text(json.dumps(schema), encoding="utf-8")
    (tmp_path / "answer.gbnf").write_text('root ::= "yes" | "no" # nothing else', encoding="utf-8")
    told = {
        "--json_schema": (json.dumps(schema), ('{"ok":true}', '{"ok":false}')),
        "--json_schema=": (f"@{tmp_path / 'schema.json'}", ('{"ok":true}', '{"ok":false}')),
        "--regex": ("[ab]{2}", ("aa", "ab", "ba", "bb")),
        "--choice": ("yes,no", ("yes", "no")),
        "--grammar": (f"@{tmp_path / 'answer.gbnf'}", ("yes", "no")),
    }
    for option, (value, wanted) in told.items():
        command = ["generate", "--model", str(folder), "--prompt", "Is it?", option.rstrip("="), value, "--json"]
        assert main([*command, "--device", "cpu"]) == 0
        completion = json.loads(capsys.readouterr().out.splitlines()[-1])["completions"][0]
        assert completion["text"] in wanted and completion["reason"] == "end"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--json_schema", '{"not": {}}'], 'json_schema cannot be kept to: Unimplemented keys: ["not"]'),
        (["--json_schema", "@nowhere.json"], "json_schema: cannot read nowhere.json: No such file"),
        (["--regex", "("], "regex cannot be kept to: unclosed group"),
        (["--choice", ""], "choice holds no text"),
        (["--choice", "a", "--regex", "b"], "regex and choice are both given"),
    ],
)
def test_what_cannot_be_kept_to_is_one_line_and_exit_code_2(folder, options, problem, capsys):
    assert main(["generate", "--model", str(folder), "--prompt", "x", "--device", "cpu", *options]) == 2
    printed = capsys.readouterr()
    assert problem in printed.err and printed.out == ""


def test_a_chat_answers_as_it_must(monkeypatch, folder, capsys):
    messages = talk(monkeypatch, folder, "Hi\nYou\n", choice=["yes", "no"])
    assert set(contents(messages, "assistant")) <= {"yes", "no"}
    with pytest.raises(DataError, match="regex cannot be kept to"):
        talk(monkeypatch, folder, "Hi\n", regex="[a&&b]")


def config_of(folder, **settings):
    return GenerateConfig(**{"model": folder, "max_tokens": 8, "device": "cpu", **settings})


def test_a_prompt_is_printed_with_its_continuation(folder, engine, capsys):
    result = generate(config_of(folder, prompt="Once"))
    text = engine.generate("Once", max_tokens=8)
    assert capsys.readouterr().out == f"Once{text}\n"
    assert result["completions"] == [{"prompt": "Once", "text": text, "tokens": 8, "reason": "length"}]


def test_a_prompt_beyond_the_context_is_refused_before_it_is_printed(folder, capsys):
    with pytest.raises(DataError, match="the model's context is 256"):
        generate(config_of(folder, prompt="a" * 300))
    assert capsys.readouterr().out == ""


def test_a_file_of_prompts_gives_a_json_object_a_line(folder, engine, tmp_path, capsys):
    prompts = [f"number {i} 木" for i in range(67)]
    (tmp_path / "prompts.txt").write_text("\n\n".join(prompts) + "\n", encoding="utf-8")
    result = generate(config_of(folder, prompts=tmp_path / "prompts.txt"))
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows == result["completions"]
    assert [row["prompt"] for row in rows] == prompts
    assert [row["text"] for row in rows] == [engine.generate(prompt, max_tokens=8) for prompt in prompts]


@pytest.mark.parametrize("draft", ["lookup", "ngram", "model"])
def test_with_a_draft_the_answer_is_the_same_and_its_guesses_are_counted(folder, draft, capsys):
    draft = str(folder) if draft == "model" else draft
    plain, guessed = (
        generate(config_of(folder, prompt="one one one one", temperature=0, max_tokens=40, draft=each))["completions"][
            0
        ]
        for each in (None, draft)
    )
    assert guessed["right"] <= guessed["guessed"] and "guessed" not in plain
    assert {key: guessed[key] for key in plain} == plain


def test_several_continuations_of_each_prompt_stand_side_by_side(folder, engine, tmp_path, capsys):
    (tmp_path / "prompts.txt").write_text("one\ntwo\n", encoding="utf-8")
    rows = generate(config_of(folder, prompts=tmp_path / "prompts.txt", n=2, logprobs=1))["completions"]
    assert [row["prompt"] for row in rows] == ["one", "one", "two", "two"]
    assert [row["text"] for row in rows[::2]] == [engine.generate(prompt, max_tokens=8) for prompt in ("one", "two")]
    assert rows[0]["text"] != rows[1]["text"]
    for row in rows:
        assert len(row["likelihoods"]) >= row["tokens"]
        assert all(each["logprob"] <= each["likeliest"][0][1] <= 0 for each in row["likelihoods"])
    assert len(generate(config_of(folder, prompt="one", n=3))["completions"]) == 3


def test_the_best_of_some_beams_are_told_with_their_scores(folder, engine, tmp_path, capsys):
    (tmp_path / "prompts.txt").write_text("one\ntwo\n", encoding="utf-8")
    wanted = [done for prompt in ("one", "two") for done in engine.search(prompt, beams=4, best=2, max_tokens=8)]
    result = generate(config_of(folder, prompts=tmp_path / "prompts.txt", beams=4, best=2))["completions"]
    assert [(row["text"], row["score"]) for row in result] == [(done.text, done.score) for done in wanted]
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == result
    assert generate(config_of(folder, prompt="one", beams=4, best=2))["completions"] == result[:2]
    capsys.readouterr()
    generate(config_of(folder, prompt="one", beams=4))
    assert capsys.readouterr().out == f"one{wanted[0].text}\n"


def test_contrastive_search_is_asked_for_by_its_alpha(folder, engine, capsys):
    generate(config_of(folder, prompt="one", penalty_alpha=0.6, top_k=4))
    wanted = engine.search("one", penalty_alpha=0.6, top_k=4, max_tokens=8)[0]
    assert capsys.readouterr().out == f"one{wanted.text}\n"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--beams=4", "--temperature=0.5"], "temperature does nothing in a search"),
        (["--penalty_alpha=0.6", "--top_k=4", "--seed=3"], "seed does nothing in a search"),
        (["--length_penalty=0.6"], "length_penalty does nothing without beams"),
        (["--beams=4", "--n=2"], "n continuations differ by chance"),
        (["--best=2"], "best is 2, of 1 beams"),
    ],
)
def test_options_that_a_search_does_not_read_are_refused(arguments, problem):
    with pytest.raises(ConfigError, match=problem):
        from_arguments(GenerateConfig, ["--model=m", "--prompt=a", *arguments])


def test_a_model_in_whole_numbers_answers_nearly_alike(folder, engine):
    ids = engine.encode("The beginning")
    whole = Engine.load(folder, weights="int8")
    sampling = SamplingConfig(max_tokens=1, temperature=0, logprobs=20)
    one, other = (dict(each.complete([ids], sampling)[0].likelihoods[0].likeliest) for each in (engine, whole))
    shared = one.keys() & other.keys()
    assert len(shared) > 15 and all(abs(one[token] - other[token]) < 0.1 for token in shared)
    assert one != other
    assert len(generate(config_of(folder, prompt="one", weights="int8"))["completions"]) == 1
    with pytest.raises(ConfigError, match="weights must be one of stored, int8, got 'int7'"):
        Engine.load(folder, weights="int7")
    with pytest.raises(ConfigError, match="weights int8 needs a CPU"):
        Engine.load(folder, weights="int8", device="meta")


def test_an_adapter_is_worn_by_every_answer(folder, tmp_path, monkeypatch, capsys):
    plain = Engine.load(folder)
    formal = random_adapter(tmp_path / "formal", plain.model.config)
    engine = Engine.load(folder, adapters={"formal": formal})
    (tmp_path / "prompts.txt").write_text("one\ntwo\n", encoding="utf-8")
    wanted = [engine.generate(prompt, max_tokens=8, adapter="formal") for prompt in ("one", "two")]
    assert wanted != [plain.generate(prompt, max_tokens=8) for prompt in ("one", "two")]
    rows = generate(config_of(folder, prompts=tmp_path / "prompts.txt", adapter=formal))["completions"]
    assert [row["text"] for row in rows] == wanted
    assert generate(config_of(folder, prompt="one", adapter=formal))["completions"][0]["text"] == wanted[0]
    said = talk(monkeypatch, folder, "Hi\n", adapter=formal)
    assert contents(said, "assistant") == [engine.chat(said[:1], max_tokens=8, adapter="formal")]
    with pytest.raises(DataError, match="is no adapter"):
        generate(config_of(folder, prompt="one", adapter=tmp_path))


def test_the_demo_continues_every_opening(folder, capsys):
    result = generate(config_of(folder, demo=True))
    out = capsys.readouterr().out
    assert [row["prompt"] for row in result["completions"]] == list(DEMO)
    for row in result["completions"]:
        assert row["prompt"] + row["text"] in out


def test_a_prompt_is_a_line_and_nothing_less(tmp_path):
    """Only a line break ends a line: not the form feeds and separators that str.splitlines takes for one."""
    (tmp_path / "prompts.txt").write_bytes("one\x0ctwo\u2028three\x85\r\n  \n four ".encode())
    assert read_prompts(tmp_path / "prompts.txt") == ["one\x0ctwo\u2028three\x85", " four "]


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"\n \n", "every line is empty"), (b"", "every line is empty"), (b"ok\n\xff", "not UTF-8: byte 3 is 0xff")],
)
def test_a_file_without_a_prompt_is_refused(tmp_path, content, problem):
    (tmp_path / "prompts.txt").write_bytes(content)
    with pytest.raises(DataError, match=rf"prompts\.txt .*{problem}"):
        read_prompts(tmp_path / "prompts.txt")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"cannot read .*nowhere\.txt: No such file"):
        read_prompts(tmp_path / "nowhere.txt")


@pytest.mark.parametrize("given", [{}, {"prompt": "a", "demo": True}, {"prompt": "a", "prompts": "b"}])
def test_exactly_one_source_of_prompts_is_asked_for(given):
    with pytest.raises(ConfigError, match="give one of prompt, prompts and demo"):
        GenerateConfig(model="m", **given)


def talk(monkeypatch, folder, typed, **settings):
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    return chat(ChatConfig(**{"model": folder, "max_tokens": 8, "device": "cpu", **settings}))["messages"]


def contents(messages, role):
    return [message["content"] for message in messages if message["role"] == role]


def test_piped_lines_are_messages_of_one_conversation(monkeypatch, folder, engine, capsys):
    messages = talk(monkeypatch, folder, "Hi\n\n  there  \n")
    assert contents(messages, "user") == ["Hi", "there"]
    replies = contents(messages, "assistant")
    assert replies == [engine.chat(messages[:1], max_tokens=8), engine.chat(messages[:3], max_tokens=8)]
    assert capsys.readouterr().out == "".join(f"{reply}\n" for reply in replies)


def test_new_forgets_all_but_the_system_message(monkeypatch, folder):
    messages = talk(monkeypatch, folder, "Hi\n/new\nYou\n", system="Be brief.")
    assert [message["role"] for message in messages] == ["system", "user", "assistant"]
    assert contents(messages, "user") == ["You"]


def test_exit_ends(monkeypatch, folder):
    assert contents(talk(monkeypatch, folder, "Hi\n/exit\nmore\n"), "user") == ["Hi"]


def test_a_template_of_ones_own_is_used(monkeypatch, folder, engine, tmp_path):
    template = tmp_path / "plain.jinja"
    template.write_text("{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}</s>\n{% endfor %}assistant:")
    messages = talk(monkeypatch, folder, "Hi\n", template=str(template))
    other = TOKENIZER.with_template(template.read_text())
    ids = encode_prompt(other, messages[:1])
    assert messages[1]["content"] == Engine(engine.model, other).chat(messages[:1], max_tokens=8)
    assert ids != encode_prompt(TOKENIZER, messages[:1])


def test_a_template_that_is_not_there_is_refused(monkeypatch, folder):
    with pytest.raises(ConfigError, match="no chat template named 'nonsense'"):
        talk(monkeypatch, folder, "Hi\n", template="nonsense")


def test_a_message_too_long_is_told_and_the_conversation_goes_on(monkeypatch, folder, capsys):
    messages = talk(monkeypatch, folder, f"Hi\n{'x' * 300}\nBye\n")
    assert contents(messages, "user") == ["Hi", "Bye"]
    assert "the model's context is 256. Say it shorter.\n" in capsys.readouterr().out


def test_the_oldest_turns_are_forgotten_when_the_context_is_full(monkeypatch, folder, engine, capsys):
    asked = [f"question {i} {'x' * 40}" for i in range(6)]
    messages = talk(monkeypatch, folder, "\n".join(asked), system="Be brief.")
    assert contents(messages, "user") == asked and len(contents(messages, "assistant")) == len(asked)
    assert capsys.readouterr().out.count("it forgets the oldest messages") == 1
    told = recent(engine, messages[:-1], 8)
    assert told[0] == messages[0] and told[1:] == messages[-len(told) : -1]
    assert (
        len(encode_prompt(TOKENIZER, told)) + 8
        <= 256
        < len(encode_prompt(TOKENIZER, [messages[0], *messages[-len(told) - 2 : -1]])) + 8
    )
    assert messages[-1]["content"] == engine.chat(told, max_tokens=8)


def test_a_full_context_leaves_room_for_a_reply(engine):
    turns = [{"role": role, "content": "x" * 60} for role in ("user", "assistant", "user", "assistant", "user")]
    assert len(recent(engine, turns, 10)) == 3
    assert recent(engine, turns, 1000) == turns[-1:]  # a quarter of the context is kept free


def test_an_empty_reply_does_not_end_the_conversation(monkeypatch, folder, capsys):
    """Every letter is a stop text: the model says nothing, and the next question is answered all the same."""
    letters = [chr(code) for code in range(128)] + ["\ufffd"]
    messages = talk(monkeypatch, folder, "Hi\nBye\n", temperature=0, stop=letters)
    assert messages == []
    assert capsys.readouterr().out == "\n\n"
