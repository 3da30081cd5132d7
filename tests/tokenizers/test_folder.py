"""A tokenizer's folder is read alike whether it is opened or imported."""

from __future__ import annotations

import json

import pytest

from seedbed.errors import CorruptionError, DataError
from seedbed.tokenizers import Tokenizer, folder
from seedbed.tokenizers import bytes as byte_tokenizer
from seedbed.tokenizers.foreign import read_foreign

READERS = pytest.mark.parametrize("read", [Tokenizer.load, read_foreign])


@pytest.fixture
def place(tmp_path):
    byte_tokenizer.build().save(tmp_path)
    return tmp_path


def say(path, **changes):
    values = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(values | changes))


@READERS
def test_of_several_templates_the_default_counts(place, read):
    named = [{"name": "tool", "template": "x"}, {"name": "default", "template": "y"}]
    say(place / "tokenizer_config.json", chat_template=named)
    assert read(place).chat_template == "y"
    say(place / "tokenizer_config.json", chat_template=named[:1])
    assert read(place).chat_template is None
    (place / "chat_template.jinja").write_text("z")
    assert read(place).chat_template == "z"


@READERS
def test_the_map_of_special_tokens_counts_where_the_config_says_nothing(place, read):
    config = json.loads((place / "tokenizer_config.json").read_text())
    del config["eos_token"]
    (place / "tokenizer_config.json").write_text(json.dumps(config))
    say(place / "special_tokens_map.json", eos_token="</s>", bos_token="<unk>")
    tokenizer = read(place)
    assert tokenizer.eos_id == tokenizer.special_ids["</s>"]
    assert tokenizer.bos_id == tokenizer.special_ids["<s>"]


@READERS
@pytest.mark.parametrize("name", ["special_tokens_map.json", "tokenizer_config.json"])
@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("[]", "must be a JSON object, not a list"),
        ('{"a": NaN}', "NaN is not JSON"),
        ('{"bos_token": 3}', "its bos_token is not a text"),
        ('{"eos_token": {"content": []}}', "its eos_token is not a text"),
        ('{"chat_template": 3}', "its chat_template is not a text"),
        ('{"chat_template": [{"name": "default"}]}', "neither a text nor a list of named ones"),
        ('{"chat_template": ["x"]}', "neither a text nor a list of named ones"),
    ],
)
def test_a_file_beside_it_that_is_not_as_it_must_be_is_named(place, read, name, content, problem):
    (place / name).write_text(content)
    with pytest.raises(CorruptionError, match=f"{name} cannot be used: .*{problem}"):
        read(place)


@READERS
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"])
def test_a_file_larger_than_any_is_not_read(place, read, name, monkeypatch):
    monkeypatch.setattr(folder, "LARGEST", 100_000)
    (place / name).write_bytes(b" " * 100_001)
    with pytest.raises(DataError, match=f"{name} holds more than 100,000 bytes"):
        read(place)


def test_a_folder_that_does_not_say_what_is_special_is_imported_but_not_opened(place):
    (place / "tokenizer_config.json").unlink()
    with pytest.raises(DataError, match=r"holds no tokenizer_config\.json"):
        Tokenizer.load(place)
    assert read_foreign(place).eos_id is not None
