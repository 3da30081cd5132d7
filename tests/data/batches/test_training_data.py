"""From the `data` group of a config to what pretraining learns from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from seedbed.configuration import Parser, from_arguments, load_config, save_config
from seedbed.data.batches.batch import IGNORE, TokenBatch
from seedbed.data.batches.best_fit import BestFitSource
from seedbed.data.batches.config import TrainingDataConfig
from seedbed.data.batches.infilling import MARKS
from seedbed.data.batches.loader import WindowSource
from seedbed.data.batches.mixture import MixtureSource
from seedbed.data.batches.prefetch import Prefetch
from seedbed.data.batches.training_data import TrainingData, open_folders
from seedbed.data.tokens import StoreWriter, open_tokens
from seedbed.errors import ConfigError, DataError
from seedbed.runs import new_folder
from seedbed.tokenizers import bytes as byte_tokenizer
from seedbed.tokenizers import characters
from seedbed.tokenizers.tokenizer import Tokenizer

LENGTH, BATCH, SEED = 16, 4, 5


def make_folder(place: Path, letter: str, documents: int, tokenizer: Tokenizer | None = None) -> Path:
    """Tokens of documents that are one letter over and over, 5 to 60 times; a tenth as many are for validation."""
    tokenizer, chance = tokenizer or byte_tokenizer.build(), np.random.default_rng(0)
    with new_folder(place, "tokens") as folder:
        (folder / "tokenizer").mkdir()
        tokenizer.save(folder / "tokenizer")
        for split, count in (("train", documents), ("val", documents // 10)):
            with StoreWriter(folder, split, tokenizer) as writer:
                for size in chance.integers(5, 60, count).tolist():
                    writer.add(np.array(tokenizer.encode(letter * size), dtype=np.uint32), size)
    return place


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> list[Path]:
    place = tmp_path_factory.mktemp("folders")
    return [make_folder(place / "a", "a", 300), make_folder(place / "b", "b", 100)]


def config(*arguments: str) -> TrainingDataConfig:
    return from_arguments(TrainingDataConfig, arguments)


def mixture(folders: list[Path], *shares: str) -> str:
    """The option that mixes these folders, each with its share as in `weight: 2`."""
    parts = [f"{{tokens: {folder}, {share}}}" for folder, share in zip(folders, shares, strict=True)]
    return f"--mixture=[{', '.join(parts)}]"


def data(*arguments: str) -> TrainingData:
    settings = config(*arguments)
    return TrainingData(settings, open_folders(settings), LENGTH, SEED)


def first_sample(step: int) -> int:
    """When every step takes as many rows."""
    return step * BATCH


def letters(batch: TokenBatch) -> list[str]:
    """Of each row."""
    return ["a" if ord("a") in row else "b" for row in batch.tokens_BT.tolist()]


def same(one: TokenBatch, other: TokenBatch) -> bool:
    names = ("tokens_BT", "targets_BT", "segments_BT", "positions_BT")
    pairs = [(getattr(one, name), getattr(other, name)) for name in names]
    return all(a is b is None or torch.equal(a, b) for a, b in pairs)


def test_a_folder_alone_is_its_windows(folders):
    source = data(f"--tokens={folders[0]}").source(first_sample)
    tokens = open_tokens(folders[0])
    windows = WindowSource(tokens.train, LENGTH, SEED)
    assert source.fingerprint == windows.fingerprint and same(source.batch(3, 50), windows.batch(3, 50))
    validation = data(f"--tokens={folders[0]}").validation(0)
    assert validation.fingerprint == WindowSource(tokens.val, LENGTH, 0).fingerprint


def test_weights_are_shares_of_the_rows_and_an_epoch_is_as_long_as_all_folders(folders):
    source = data(mixture(folders, "weight: 1", "weight: 3")).source(first_sample)
    assert letters(source.batch(0, 1000)).count("a") == 250
    assert source.samples == sum(WindowSource(open_tokens(place).train, LENGTH, 0).samples for place in folders)


def test_weights_change_at_the_step_that_was_asked_for(folders):
    phases = "--phases=[{from_step: 10, weights: [0, 1]}, {from_step: 20, weights: [1, 0]}]"
    source = data(mixture(folders, "weight: 1", "weight: 1"), phases).source(first_sample)
    found = letters(source.batch(0, 30 * BATCH))
    assert len(set(found[: 10 * BATCH])) == 2
    assert set(found[10 * BATCH : 20 * BATCH]) == {"b"} and set(found[20 * BATCH :]) == {"a"}


def test_an_epoch_takes_of_each_folder_the_tokens_of_its_budget(folders):
    budgets = (f"token_budget: {2960 * LENGTH}", f"token_budget: {40 * LENGTH}")
    source = data(mixture(folders, *budgets)).source(first_sample)
    assert source.samples == 3000
    assert letters(source.batch(0, source.samples)).count("b") == pytest.approx(40, abs=2)


@pytest.mark.parametrize("shares", [("epochs: 2", "epochs: 0.5"), ("epochs: 1", "epochs: 1"), None])
def test_an_epoch_goes_through_each_folder_as_often_as_asked(folders, shares):
    parts = mixture(folders, *shares) if shares else f"--mixture=[{{tokens: {folders[0]}}}, {{tokens: {folders[1]}}}]"
    source = data(parts).source(first_sample)
    times = [float(share.split()[1]) for share in shares or ("x 1", "x 1")]
    rows = [time * part.samples for time, part in zip(times, source.sources, strict=True)]
    assert source.samples == round(sum(rows))
    # The last block may be cut off anywhere.
    assert letters(source.batch(0, source.samples)).count("a") == pytest.approx(rows[0], abs=25)


@pytest.mark.parametrize("packing", ["isolate", "best_fit"])
def test_packing_isolates_documents_in_training_and_validation(folders, packing):
    given = data(f"--tokens={folders[0]}", f"--packing={packing}")
    for batch in (given.source(first_sample).batch(0, 20), given.validation(0).batch(0, 20)):
        starts = (batch.tokens_BT == given.tokenizer.bos_id) & (batch.segments_BT >= 0)
        assert starts.any() and not batch.positions_BT[starts].any()
    assert isinstance(given.source(first_sample), BestFitSource if packing == "best_fit" else WindowSource)


def test_best_fit_reports_its_waste_for_each_folder(folders):
    given = data(mixture(folders, "weight: 1", "weight: 1"), "--packing=best_fit")
    reports = given.notes["best_fit"]
    assert list(reports) == [str(folder) for folder in folders]
    assert all(report.keys() == {"padding", "cropped", "cut"} for report in reports.values())
    batch = given.source(first_sample).batch(0, 1000)
    assert float((batch.segments_BT < 0).float().mean()) < 0.2 and not data(f"--tokens={folders[0]}").notes
    assert ((batch.targets_BT != IGNORE) <= (batch.segments_BT >= 0)).all()


def test_best_fit_needs_a_padding_token(tmp_path):
    folder = make_folder(tmp_path / "t", "a", 30, byte_tokenizer.build(specials=False))
    with pytest.raises(ConfigError, match="best_fit needs a tokenizer with a padding token"):
        data(f"--tokens={folder}", "--packing=best_fit")


def test_rows_overlap_by_the_stride(folders):
    plain, overlapping = (
        data(f"--tokens={folders[0]}", f"--stride={stride}").source(first_sample) for stride in (16, 4)
    )
    assert overlapping.samples == pytest.approx(4 * plain.samples, abs=4)


def test_rows_become_longer_at_the_step_that_was_asked_for(folders):
    source = data(f"--tokens={folders[0]}", "--lengths=[{from_step: 0, length: 4}, {from_step: 3, length: 16}]")
    shapes = [tuple(source.source(first_sample).batch(step * BATCH, BATCH).tokens_BT.shape) for step in range(5)]
    assert shapes == [(16, 4)] * 3 + [(4, 16)] * 2


def test_infilling_needs_its_marks_and_then_moves_text(folders, tmp_path):
    with pytest.raises(ConfigError, match="needs the special tokens"):
        data(f"--tokens={folders[0]}", "--infilling=0.5").source(first_sample)
    given = data(f"--tokens={make_folder(tmp_path / 't', 'a', 50, byte_tokenizer.build().with_tokens(MARKS))}")
    marked = TrainingData(config(f"--tokens={tmp_path / 't'}", "--infilling=0.5"), given.folders, LENGTH, SEED)
    middle = given.tokenizer.special_ids[MARKS[2]]
    assert (marked.source(first_sample).batch(0, 40).tokens_BT == middle).any()
    assert not (marked.validation(0).batch(0, 10).tokens_BT == middle).any()


def test_threads_change_no_batch(folders):
    options = (mixture(folders, "weight: 1", "weight: 3"), "--packing=isolate")
    plain, threads = data(*options).source(first_sample), data(*options, "--workers=2").source(first_sample)
    assert isinstance(threads, Prefetch) and isinstance(plain, MixtureSource)
    assert all(same(plain.batch(i * BATCH, BATCH), threads.batch(i * BATCH, BATCH)) for i in range(10))


def test_validation_takes_of_each_folder_by_its_tokens(folders):
    given = data(mixture(folders, "weight: 1", "weight: 1"))
    source = given.validation(0)
    stores = [tokens.val for tokens in given.folders]
    assert source.samples == sum((store.n_tokens - 1) // LENGTH for store in stores)
    share = stores[0].n_tokens / sum(store.n_tokens for store in stores)
    assert letters(source.batch(0, 1000)).count("a") == pytest.approx(1000 * share, abs=15)


def test_folders_of_different_tokenizers_are_refused(folders, tmp_path):
    other = make_folder(tmp_path / "other", "a", 30, characters.train(["abc"]))
    with pytest.raises(DataError, match="vocabulary"):
        open_folders(config(mixture([folders[0], other], "weight: 1", "weight: 1")))


def test_no_folder_is_told_with_what_to_give():
    with pytest.raises(ConfigError, match=r"data\.tokens is required"):
        open_folders(config())


PARTS = "--mixture=[{tokens: a, weight: 1}, {tokens: b, weight: 2}]"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tokens=a", PARTS], "tokens cannot stand beside mixture"),
        (["--mixture=[{tokens: a, weight: 1}, {tokens: b}]"], "one of weight, epochs and token_budget, the same"),
        (["--mixture=[{tokens: a, weight: 1, epochs: 2}]"], "mixture[0].epochs cannot stand beside weight"),
        (["--mixture=[{tokens: a, epochs: 0}]"], "mixture[0].epochs must be > 0, got 0"),
        (["--mixture=[{tokns: a}]"], "unknown key mixture[0].tokns; did you mean tokens?"),
        (["--mixture=[{weight: 1}]"], "mixture[0].tokens is required: Folder that `seedbed tokenize` wrote."),
        (["--mixture=[{tokens: a, epochs: 1}]", "--phases=[{from_step: 1, weights: [1]}]"], "whose parts have weights"),
        ([PARTS, "--phases=[{from_step: 1, weights: [1]}]"], "phases needs 2 weights in each"),
        (
            [PARTS, "--phases=[{from_step: 0, weights: [1, 1]}]"],
            "from_step must be between 1 and 1099511627776, got 0",
        ),
        ([PARTS, "--phases=[{from_step: 1, weights: [1, -1]}]"], "weights must be between 0 and"),
        ([PARTS, "--phases=[{from_step: 1, weights: [0, 0]}]"], "and not all 0, got [0.0, 0.0]"),
        ([PARTS, "--phases=[{from_step: 1, weights: [1e308, 1e308]}]"], "weights must be between 0 and"),
        (["--mixture=[{tokens: a, weight: 1e308}, {tokens: a, weight: 1e308}]"], "weight must be between 0 and"),
        (["--mixture=[{tokens: a, epochs: 1e308}, {tokens: a, epochs: 1e308}]"], "epochs must be between 0 and"),
        (["--mixture=[{tokens: a, token_budget: 1e308}]"], "token_budget must be between 0 and"),
        (["--stride=99999999999999999999"], "stride must be between 1 and"),
        (["--lengths=[{from_step: 99999999999999999999, length: 8}]"], "from_step must be between 0 and"),
        (
            [PARTS, "--phases=[{from_step: 9, weights: [1, 1]}, {from_step: 4, weights: [1, 2]}]"],
            "phases must follow one another, got from_step 9, 4",
        ),
        (["--lengths=[{from_step: 2, length: 8}]"], "lengths must begin with from_step 0, got 2"),
        (["--packing=best_fit", "--stride=8"], "stride is for the packing concatenate or isolate"),
        (["--packing=isolate", "--infilling=0.5"], "infilling is for the packing concatenate, not isolate"),
        (["--infilling=1.5"], "infilling must be between 0 and 1, got 1.5"),
        (["--workers=-1"], "workers must be at least 0, got -1"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_key(arguments, said):
    with pytest.raises(ConfigError) as told:
        config(*arguments)
    assert said in told.value.problem and "\n" not in told.value.problem


def test_a_mixture_is_printed_saved_and_read_again(tmp_path):
    (tmp_path / "mix.yaml").write_text(
        "mixture:\n"
        "  - {tokens: a, token_budget: 1e9}\n"
        "  - tokens: b\n"
        "    token_budget: 5e8\n"
        "lengths: [{from_step: 0, length: 64}, {from_step: 1000, length: 128}]\n"
    )
    given = config(f"--config={tmp_path / 'mix.yaml'}")
    assert [part.token_budget for part in given.mixture] == [1e9, 5e8]
    save_config(tmp_path / "saved.yaml", given)
    assert load_config(tmp_path / "saved.yaml", TrainingDataConfig) == given
    printed = Parser(TrainingDataConfig).read([f"--config={tmp_path / 'mix.yaml'}", "--print_config"]).text
    (tmp_path / "printed.yaml").write_text(printed)
    assert load_config(tmp_path / "printed.yaml", TrainingDataConfig) == given


def test_help_explains_the_keys_of_each_entry():
    text = " ".join(Parser(TrainingDataConfig).read(["--help"]).text.split())
    assert "--mixture [{tokens, weight, epochs, token_budget}, ...]" in text
    assert "epochs: How often an epoch of the mixture goes through this folder." in text
