"""A checkpoint whose files say something else than its tensors hold is told; the model is then untouched."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import asdict, fields

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file
from torch.distributed.checkpoint import HuggingFaceStorageWriter

from seedbed.errors import SeedbedError
from seedbed.model.folder import load_model, write_config
from seedbed.model.state import write_state
from seedbed.model.weights import WEIGHTS
from seedbed.optim.config import OptimizerConfig
from seedbed.runs import new_folder, seal, write_json
from seedbed.tokenizers import bytes as byte_tokenizer
from seedbed.training.records import JsonLines
from seedbed.training.run_state import RunState
from seedbed.training.tensors import tensors_of
from tests.hostile import damage, damaged, memory_within
from tests.tiny import tiny_trainer

HUNDRED_MB = 100_000_000


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    run = tmp_path_factory.mktemp("trained") / "run"
    trainer = tiny_trainer(run)
    trainer.train()
    (run / "tokenizer").mkdir()
    byte_tokenizer.build().save(run / "tokenizer")
    return run


@pytest.fixture
def folder(original, tmp_path):
    shutil.copytree(original, tmp_path / "run")
    return tmp_path / "run" / "checkpoints" / "step_00000004"


def weights(model):
    return [weight.detach().clone() for weight in model.parameters()]


def outcome(folder, trainer) -> str:
    """ "loaded", or the problem; every other ending fails."""
    seal(folder, "checkpoint", config={"data": "rows"})
    before = weights(trainer.model)
    with memory_within(HUNDRED_MB):
        try:
            trainer.checkpoints.load(4, trainer.model, trainer.optimizers, "rows")
        except SeedbedError as error:
            assert "\n" not in error.problem and str(folder) in error.problem
            assert all((a == b).all() for a, b in zip(weights(trainer.model), before, strict=True))
            return error.problem
    return "loaded"


@pytest.mark.parametrize("file", ["state.json", "seedbed.json"])
def test_a_damaged_file_is_told_or_changes_nothing(folder, file, tmp_path):
    trainer = tiny_trainer(tmp_path / "fresh")
    trainer.checkpoints = tiny_trainer(tmp_path / "run").checkpoints
    chance = random.Random(file)
    whole = (folder / file).read_bytes()
    for _ in range(60):
        damage(folder / file, chance)
        outcome(folder, trainer)
        (folder / file).write_bytes(whole)
    assert outcome(folder, trainer) == "loaded"


def test_a_damaged_header_of_the_tensors_is_told_or_changes_nothing(folder, tmp_path):
    trainer = tiny_trainer(tmp_path / "fresh")
    trainer.checkpoints = tiny_trainer(tmp_path / "run").checkpoints
    chance = random.Random(3)
    file = next(folder.glob("*.safetensors"))
    raw = file.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    for _ in range(60):
        header = damaged(raw[8 : 8 + size].decode(), chance)
        file.write_bytes(len(header).to_bytes(8, "little") + header + raw[8 + size :])
        outcome(folder, trainer)
        with memory_within(HUNDRED_MB):
            try:
                load_model(folder)
            except SeedbedError as error:
                assert "\n" not in error.problem


WRONG = ["4", [[]], {}, True, 2**70]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((field.name, value) for field in fields(RunState) for value in WRONG),
        *((name, value) for name in ("step", "units", "skipped_in_row") for value in (None, 4.5)),
    ],
)
def test_a_state_of_the_wrong_type_is_told_with_its_field(folder, field, value, tmp_path):
    values = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(values | {field: value}))
    assert f"state.json: {field} must be " in outcome(folder, tiny_trainer(tmp_path / "run"))


def test_an_offset_in_the_header_takes_no_memory(folder, tmp_path):
    """torch.distributed.checkpoint takes the size of a tensor to be where its last part ends."""
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    dcp.save(tensors, storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True), no_dist=True)
    (file,) = folder.glob("shard-*.safetensors")
    raw = file.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    offsets = json.loads(header["__metadata__"]["DCP_SHARDING_INFO"])
    offsets["model.final_norm.weight"]["saved_offsets"] = [2**40]
    header["__metadata__"]["DCP_SHARDING_INFO"] = json.dumps(offsets)
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + size :])
    problem = outcome(folder, tiny_trainer(tmp_path / "run"))
    assert f"final_norm.weight has shape ({2**40 + 16},), the config promises (16,)" in problem


def rewrite(trainer, tensors):
    """The last checkpoint of a trainer, with these tensors."""
    folder = trainer.checkpoints.path(4)
    shutil.rmtree(folder)
    with new_folder(folder, "checkpoint", config={"data": "rows"}) as staging:
        write_state(staging, tensors)
        write_config(staging, trainer.model.config)
        write_json(staging / "state.json", asdict(trainer.progress))
    return folder


@pytest.mark.parametrize("name", ["muon", "adafactor"])
@pytest.mark.parametrize(
    ("state", "shape"),
    [
        ("final_norm.weight:exp_avg", ()),
        ("final_norm.weight:exp_avg", (32,)),
        ("final_norm.weight:squares", (1,)),
        ("embedding.weight:rows", (263, 16)),
        ("embedding.weight:rows", (1, 263)),
        ("embedding.weight:more", (263, 1)),
        ("embedding.weight:momentum", (263, 16)),
        ("nowhere:momentum", (4,)),
        ("final_norm.weight", (16,)),
    ],
)
def test_state_that_the_optimizer_would_not_have_is_refused(name, state, shape, tmp_path):
    """A kernel that trusts its shape would read beyond it."""
    trainer = tiny_trainer(tmp_path / "run", optimizer=OptimizerConfig(name=name))
    trainer.train()
    tensors = tensors_of(trainer.model, trainer.optimizers, trainer.parallel)
    folder = rewrite(trainer, tensors | {f"optimizer.{state}": torch.zeros(shape)})
    fresh = tiny_trainer(tmp_path / "run", optimizer=OptimizerConfig(name=name))
    assert f"holds optimizer.{state}, which is not of this model's training" in outcome(folder, fresh)


def test_states_of_random_generators_that_older_versions_wrote_are_passed_over(tmp_path):
    trainer = tiny_trainer(tmp_path / "run")
    trainer.train()
    tensors = tensors_of(trainer.model, trainer.optimizers, trainer.parallel)
    rewrite(trainer, tensors | {name: torch.get_rng_state() for name in ("random.cpu", "random.cuda:1")})
    assert tiny_trainer(tmp_path / "run").resume() == 4
    folder = rewrite(trainer, tensors | {"random.cpux": torch.get_rng_state()})
    assert "holds random.cpux" in outcome(folder, tiny_trainer(tmp_path / "run"))


def test_a_part_of_a_state_is_refused(tmp_path):
    trainer = tiny_trainer(tmp_path / "run")
    trainer.train()
    tensors = tensors_of(trainer.model, trainer.optimizers, trainer.parallel)
    del tensors["optimizer.final_norm.weight:exp_avg_sq"]
    problem = outcome(rewrite(trainer, tensors), tiny_trainer(tmp_path / "run"))
    assert "holds a part of the optimizer's state of final_norm.weight" in problem


@pytest.mark.parametrize(
    "line", ["3", "null", '{"loss": 1}', '{"step": "1"}', '{"step": 1', "[" * 10_000, '{"step": NaN}']
)
def test_records_end_at_the_first_line_that_is_none(tmp_path, line):
    records = JsonLines(tmp_path / "metrics.jsonl")
    records.append({"step": 1})
    with records.path.open("a") as file:
        file.write(line + "\n")
    records.append({"step": 2})
    assert records.records() == [{"step": 1}]
    records.cut(5)
    assert records.path.read_text() == '{"step": 1}\n'
