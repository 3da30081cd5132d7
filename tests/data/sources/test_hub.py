"""Every plan for a data set of the hub prepares a corpus from files in that data set's schema."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import huggingface_hub
import pyarrow
import pyarrow.parquet
import pytest
import yaml

from seedbed.configuration import from_arguments, list_presets
from seedbed.data.config import HubConfig, PrepareConfig
from seedbed.data.corpus import Corpus
from seedbed.data.prepare import prepare
from seedbed.data.sources.hub import stream_rows
from seedbed.errors import DataError

PROSE = [
    f"The gardener planted seed number {i} in the dark soil beside the {tree}. It waited there for the rain of spring, "
    f"and when the {tree} had lost its leaves {i + 3} times it was a tree itself, with a nest of its own."
    for i, tree in enumerate(["oak", "elm", "ash", "yew", "fir", "larch", "birch", "beech"] * 3)
]

ROWS = {
    "wikipedia": lambda i, text: {"id": str(i), "url": "https://x", "title": f"T{i}", "text": text},
    "the-stack": lambda i, text: {"hexsha": "a", "size": 1, "lang": "Python", "content": f"# {text}\nx = {i}"},
    "openwebtext": lambda i, text: {"text": text},
    "c4": lambda i, text: {"text": text, "timestamp": "2019", "url": "https://x"},
    "the-pile": lambda i, text: {"text": text, "meta": {"pile_set_name": "StackExchange" if i % 2 else "PubMed"}},
    "wikitext-2": lambda i, text: {"text": text if i % 3 else ""},
    "wikitext-103": lambda i, text: {"text": f" = Title {i} = \n" if i % 3 == 0 else text},
    "fineweb-edu": lambda i, text: {"text": text, "id": str(i), "url": "u", "score": 3.5, "token_count": 9},
    "tinystories": lambda i, text: {"text": text},
    "shakespeare": lambda i, text: {"text": text},
    "oasst1": lambda i, text: {
        "message_id": str(i), "text": text, "role": "prompter", "lang": "en" if i % 2 else "es", "deleted": i % 5 == 0,
    },
    "alpaca": lambda i, text: {"instruction": f"Tell {i}", "input": "", "output": text, "text": f"Tell {i}: {text}"},
    "lmsys-chat": lambda i, text: {
        "conversation_id": str(i),
        "conversation": [{"role": "user", "content": f"Tell of {i}"}, {"role": "assistant", "content": text}],
        "language": "English" if i % 2 else "German",
        "openai_moderation": [{"flagged": False}],
    },
}  # fmt: skip


def data_set(folder: Path, plan: dict, rows: list[dict]) -> Path:
    """A folder as the hub holds it: Parquet files, and a card that names configuration and split."""
    hub = plan.get("reading", {}).get("hub", {})
    place = folder / hub.get("data_dir", "data")
    place.mkdir(parents=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), place / "train-00000-of-00001.parquet")
    if "subset" in hub:
        files = [{"split": "train", "path": "data/*.parquet"}]
        head = yaml.safe_dump({"configs": [{"config_name": hub["subset"], "data_files": files}]})
        (folder / "README.md").write_text(f"---\n{head}---\n")
    return folder


@pytest.mark.parametrize("name", ROWS)
def test_every_plan_prepares_rows_of_its_schema(tmp_path, monkeypatch, name):
    (preset,) = [preset for preset in list_presets() if preset.name == f"data/{name}"]
    plan = yaml.safe_load(preset.path.read_text())
    assert preset.command == "prepare" and plan["source"].startswith("hub:") and plan["licence"]
    rows = [ROWS[name](i, text) for i, text in enumerate(PROSE)]
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    folder = data_set(tmp_path / "set", plan, rows)
    arguments = [f"--source=hub:{folder}", f"--out={tmp_path / 'out'}", "--reading.hub.revision=null", "--workers=1"]
    stats = prepare(from_arguments(PrepareConfig, ["--config", f"data/{name}", *arguments]))
    where = plan.get("reading", {}).get("hub", {}).get("where", {})
    taken = [row for row in rows if all(str(row[key]) == value for key, value in where.items())]
    assert stats["records"] == len(taken) > 0
    documents = [d.text for split in ("train", "val") for d in Corpus.open(tmp_path / "out").documents(split)]
    assert len(documents) > len(taken) / 2
    assert any("dark soil" in text for text in documents)
    assert plan["licence"] in (tmp_path / "out" / "DATA_CARD.md").read_text()


def test_the_plans_that_need_no_hub_are_listed_too():
    names = {preset.name for preset in list_presets() if preset.command == "prepare"}
    assert {f"data/{name}" for name in [*ROWS, "stdlib", "skills", "web"]} == names


def test_a_share_is_the_same_rows_each_time_and_a_larger_one_holds_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    folder = data_set(tmp_path / "set", {}, [{"text": str(i)} for i in range(1000)])
    texts = {f: [row["text"] for row in stream_rows(str(folder), HubConfig(fraction=f))] for f in (0.1, 0.3, 1.0)}
    assert 70 < len(texts[0.1]) < 130 and set(texts[0.1]) < set(texts[0.3]) and len(texts[1.0]) == 1000


def test_a_field_inside_a_field_can_choose_rows(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    folder = data_set(tmp_path / "set", {}, [ROWS["the-pile"](i, text) for i, text in enumerate(PROSE)])
    rows = list(stream_rows(str(folder), HubConfig(where={"meta.pile_set_name": "PubMed"})))
    assert len(rows) == len(PROSE) / 2


def test_a_data_set_that_is_not_there_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    for module in (huggingface_hub.constants, datasets.config):  # which read the environment once
        monkeypatch.setattr(module, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="cannot read hub:nobody/nothing"):
        list(stream_rows("nobody/nothing", HubConfig()))
    folder = data_set(tmp_path / "set", {}, [{"text": "a"}])
    with pytest.raises(DataError, match=r"cannot read hub:.*nope"):
        list(stream_rows(str(folder), HubConfig(split="nope")))
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "x.jsonl").write_text(json.dumps({"text": 1}))
    assert list(stream_rows(str(tmp_path / "empty"), HubConfig()))
