"""What a step minimises: the next token, hidden tokens, what follows a prefix."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from seedbed.configuration import from_arguments
from seedbed.data.batches.batch import IGNORE, TokenBatch
from seedbed.data.batches.prefixes import Prefixes
from seedbed.errors import ConfigError
from seedbed.inference.engine import Engine
from seedbed.model.folder import load_model
from seedbed.training.config import PretrainConfig
from seedbed.training.objective import NextToken, TargetTokens
from seedbed.training.pretrain import pretrain
from tests.tiny import TINY, TINY_ARGUMENTS, random_rows, records, same_bits, save_tiny_model, tiny_model, tiny_run

MASKED = ("--objective=masked", "--model.causal=false")


def test_the_loss_is_the_mean_surprise_of_the_targets_that_are_asked_for():
    model, batch = tiny_model().double(), random_rows(3, targets=[5, 0, 2]).batch(0, 3)
    logs_BTV = model(batch.tokens_BT).log_softmax(-1)
    wanted = [
        -logs_BTV.detach()[b, t, batch.targets_BT[b, t]] for b, t in (batch.targets_BT != IGNORE).nonzero().tolist()
    ]
    found = NextToken().loss(model, batch)
    assert found.units == 7 and float(found.sum.detach()) == pytest.approx(sum(map(float, wanted)), rel=1e-12)


# Masked --------------------------------------------------------------------------------------------------------------


def test_a_masked_model_learns_from_both_sides_and_says_so_in_its_folder(tokens, tmp_path):
    # The text repeats few words: what is hidden can be told from its neighbours.
    result = tiny_run(tokens, tmp_path / "run", *MASKED, "--train.steps=150", "--model.width=32")
    losses = [record["val_loss"] for record in records(tmp_path / "run") if "val_loss" in record]
    assert losses[-1] < 0.75 * losses[0] and "val_bits_per_byte" not in result
    assert not load_model(tmp_path / "run")[0].config.causal
    assert "seedbed generate" not in (tmp_path / "run" / "README.md").read_text()


def test_a_masked_run_resumes_and_accumulates_to_the_same(tokens, tmp_path):
    """With rows that a curriculum cuts, too."""
    lengths = "--data.lengths=[{from_step: 0, length: 8}, {from_step: 4, length: 16}]"
    given = (*MASKED, lengths, "--train.steps=8", "--train.checkpoint.steps=3")
    tiny_run(tokens, tmp_path / "whole", *given)
    tiny_run(tokens, tmp_path / "small", *given, "--train.micro_batch=1")
    tiny_run(tokens, tmp_path / "cut", *given)
    tiny_run(tokens, tmp_path / "cut", *given, f"--resume={tmp_path / 'cut' / 'checkpoints' / 'step_00000006'}")
    assert same_bits(tmp_path / "cut", tmp_path / "whole")
    for one, other in zip(records(tmp_path / "whole"), records(tmp_path / "small"), strict=True):
        assert one == pytest.approx(other, rel=2e-4)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--objective=masked"], "needs a model that reads both ways"),
        (["--model.causal=false"], "the objective causal needs a causal model"),
        (["--objective=prefix", "--model.causal=false"], "the objective prefix needs a causal model"),
        ([*MASKED, "--samples.every=2"], "samples.every"),
        (["--objective=masked", "--data.infilling=0.5"], "infilling is for the objective causal"),
        (["--objective=masked", "--masked_share=0"], "masked_share"),
    ],
)
def test_an_objective_that_does_not_fit_is_refused_and_leaves_nothing(arguments, said, tokens, tmp_path):
    with pytest.raises(ConfigError, match=said):
        tiny_run(tokens, tmp_path / "run", "--train.steps=1", *arguments)
    assert not (tmp_path / "run").exists()


def test_a_model_that_reads_both_ways_is_never_asked_for_the_next_token(tmp_path):
    """It would have read the answer: a loss near nought that means nothing."""
    folder = save_tiny_model(tmp_path / "model", causal=False)
    with pytest.raises(ConfigError, match="cannot go on with a text"):
        Engine.load(folder)
    with pytest.raises(ConfigError, match="reads both ways"):
        NextToken().loss(load_model(folder)[0], random_rows(1).batch(0, 1))


# Prefix --------------------------------------------------------------------------------------------------------------


def test_what_a_prefix_holds_changes_no_loss_but_by_being_read():
    """The loss of a prefixed row is that of its rest, read as one mask says: positions before the prefix's end see all
    of it, later ones what came before them."""
    model = tiny_model(replace(TINY, layers=2)).double()
    batch = Prefixes(random_rows(6), seed=1).batch(0, 6)
    found = NextToken().loss(model, batch)
    total = torch.zeros((), dtype=torch.float64)
    for row, prefix in enumerate(batch.prefix_B.tolist()):
        for position in range(prefix - 1, batch.tokens_BT.shape[1]):
            seen = batch.tokens_BT[row : row + 1, : position + 1]  # what comes later cannot have mattered
            logs = model(seen, prefix_B=torch.tensor([prefix])).log_softmax(-1)
            total -= logs[0, -1, batch.targets_BT[row, position]]
    assert float(found.sum.detach()) == pytest.approx(float(total.detach()), rel=1e-10)
    assert found.units == int((12 - batch.prefix_B + 1).sum())


def test_no_position_predicts_a_token_it_has_read():
    batch = Prefixes(random_rows(50), seed=2).batch(0, 50)
    model = tiny_model().double()
    places = torch.arange(12)
    for row in range(50):
        asked = (batch.targets_BT[row] != IGNORE).nonzero()[:, 0]
        position = int(asked[row % len(asked)])
        if position + 1 < 12:
            other = batch.tokens_BT[row : row + 1].clone()
            other[0, position + 1] = (other[0, position + 1] + 1) % 200
            prefix_B = batch.prefix_B[row : row + 1]
            before, after = (model.hidden(rows, prefix_B=prefix_B) for rows in (batch.tokens_BT[row : row + 1], other))
            assert torch.equal(before[0, places <= position], after[0, places <= position])


def test_a_prefix_run_learns_and_resumes_to_the_same_bits(tokens, tmp_path):
    given = ("--objective=prefix", "--data.packing=isolate", "--train.steps=40", "--train.checkpoint.steps=15")
    result = tiny_run(tokens, tmp_path / "whole", *given)
    losses = [record["val_loss"] for record in records(tmp_path / "whole") if "val_loss" in record]
    assert losses[-1] < losses[0] and result["finished"]
    tiny_run(tokens, tmp_path / "cut", *given)
    tiny_run(tokens, tmp_path / "cut", *given, f"--resume={tmp_path / 'cut' / 'checkpoints' / 'step_00000030'}")
    assert same_bits(tmp_path / "cut", tmp_path / "whole")


def test_a_mixture_keeps_the_prefixes_of_its_parts(tokens, tmp_path):
    mixture = f"--data.mixture=[{{tokens: {tokens}, weight: 1}}, {{tokens: {tokens}, weight: 2}}]"
    arguments = ["--objective=prefix", mixture, "--train.steps=3", f"--out={tmp_path / 'run'}", *TINY_ARGUMENTS]
    assert pretrain(from_arguments(PretrainConfig, arguments))["finished"]


def test_targets_may_be_asked_for_anywhere():
    model, tokens_BT = tiny_model(replace(TINY, causal=False)), random_rows(2).tokens_NT
    targets_BT = torch.full_like(tokens_BT, IGNORE)
    targets_BT[:, 3] = 9
    assert TargetTokens().loss(model, TokenBatch(tokens_BT, targets_BT)).units == 2
