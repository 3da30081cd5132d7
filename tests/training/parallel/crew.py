"""Promises that two or four processes keep together, each a function that all of them run; started once for each
number of processes."""

from __future__ import annotations

import json
import os
import signal
import traceback
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist

from seedbed.errors import ConfigError, StorageError
from seedbed.model.linears import linear
from seedbed.model.routing import find_routers
from seedbed.optim.config import OptimizerConfig
from seedbed.training import checkpoint
from seedbed.training.config import CheckpointConfig
from seedbed.training.parallel.parallel import Parallel
from seedbed.training.parallel.world import PeerError, World
from seedbed.training.trainer import Trainer
from tests.tiny import TINY, random_rows, tiny_trainer

MODEL = replace(TINY, layers=2)
MIXED = replace(MODEL, experts=4, experts_active=2, experts_shared=1, expert_width=16, router_normalised=True)
"""The first block is one of experts too."""
BALANCED = replace(MIXED, router="sigmoid", balance_loss=0.01, balance_rate=0.01)
TARGETS = [1, 12, 5, 7, 3, 9, 2, 12, 11, 4, 6, 8, 10, 1, 2, 3]
"""Of each row: means of means would be far off."""
GENTLE = OptimizerConfig(matrix_rate=0.005, embedding_rate=0.01, head_rate=0.002, vector_rate=0.005)
"""Rates at which rounding does not grow from step to step."""
RARELY = CheckpointConfig(steps=1000, keep=9)


def trainer(place: Path, **train) -> Trainer:
    train = {"model": MODEL, "optimizer": GENTLE, "checkpoint": RARELY} | train
    return tiny_trainer(place, random_rows(16, targets=TARGETS), validation=random_rows(5, seed=1), **train)


def alone(place: Path, **train) -> Trainer:
    """What one process by itself makes of the same, also where there are others."""
    import seedbed.training.trainer as module

    arrange = module.arrange
    module.arrange = lambda model, config: Parallel(model, World())  # type: ignore[assignment]
    try:
        return trainer(place, **train)
    finally:
        module.arrange = arrange


def numbers(one: Trainer, steps: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Its losses, the validation's last; its gradients' norms; and what it reports of experts, their biases last."""
    reports = [one.step() for _ in range(steps)]
    losses = [*(report.tally.sum / report.tally.units for report in reports), one.validate()["loss"]]
    norms = [report.gradient_norm for report in reports]
    of_experts = [value for report in reports for _, value in sorted(report.tally.totals.items())]
    routers = find_routers(one.model).values()
    of_experts += [bias for router in routers if hasattr(router, "bias") for bias in router.bias.tolist()]
    return torch.tensor(losses), torch.tensor(norms), torch.tensor(of_experts)


ALONE: dict[str, tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = {}
"""The numbers of one process, by its settings: several ways of training together are held against the same."""


def lose_alike(
    place: Path, steps: int, *, parallel: str = "ddp", tensor_parallel: int = 1, shard_group: int | None = None, **train
) -> None:
    settings = repr((steps, train))
    if settings not in ALONE:
        ALONE[settings] = numbers(alone(place / "alone", steps=steps, **train), steps)
    way = {"parallel": parallel, "tensor_parallel": tensor_parallel, "shard_group": shard_group}
    many = trainer(place / "many", steps=steps, **way, **train)
    (losses, norms, of_experts), (losses_, norms_, of_experts_) = ALONE[settings], numbers(many, steps)
    torch.testing.assert_close(losses_, losses, atol=1e-5, rtol=0)
    torch.testing.assert_close(norms_, norms, atol=0, rtol=1e-3)
    torch.testing.assert_close(of_experts_, of_experts, atol=1e-3, rtol=1e-5)  # loads are whole numbers, and sums


def ddp_has_the_losses_of_one_process_for_100_steps(place: Path) -> None:
    lose_alike(place, 100, parallel="ddp")


def ddp_with_rows_that_do_not_divide_evenly_does_too(place: Path) -> None:
    lose_alike(place, 20, batch=3, micro_batch=1)


def zero1_has_the_losses_of_one_process_for_100_steps(place: Path) -> None:
    lose_alike(place, 100, parallel="zero1")


def fsdp_has_the_losses_of_one_process_for_100_steps(place: Path) -> None:
    lose_alike(place, 100, parallel="fsdp")


def fsdp_with_rows_that_do_not_divide_evenly_does_too(place: Path) -> None:
    """One process has a pass less, and makes it all the same: the other waits for its weights."""
    lose_alike(place, 20, parallel="fsdp", batch=3, micro_batch=1)


def fsdp_with_adamw_does_too(place: Path) -> None:
    lose_alike(place, 20, parallel="fsdp", optimizer=OptimizerConfig(name="adamw"))


def fsdp_with_norms_behind_the_blocks_does_too(place: Path) -> None:
    """A block's last norm is read by the next block, when this one's weights are gone."""
    lose_alike(place, 20, parallel="fsdp", model=replace(MODEL, norm_place="post"))


def fsdp_with_tables_and_convolutions_does_too(place: Path) -> None:
    model = replace(MODEL, tied=True, embedding_skip=True, value_embeddings=True, short_convolution=3)
    lose_alike(place, 20, parallel="fsdp", model=model)


def products_of_onednn_keep_the_losses_of_one_process(place: Path) -> None:
    worth, linear.WORTH = linear.WORTH, 0
    try:
        for way in ("ddp", "zero1", "fsdp"):
            (place / way).mkdir(exist_ok=True)
            lose_alike(place / way, 20, parallel=way, seed=1)
        lose_alike(place, 20, tensor_parallel=2, seed=1)
    finally:
        linear.WORTH = worth


def ddp_balances_experts_by_the_loads_of_all_processes(place: Path) -> None:
    lose_alike(place, 20, model=BALANCED)


def zero1_balances_experts_by_the_loads_of_all_processes(place: Path) -> None:
    lose_alike(place, 20, parallel="zero1", model=BALANCED)


def fsdp_with_experts_has_the_losses_of_one_process(place: Path) -> None:
    lose_alike(place, 20, parallel="fsdp", model=MIXED)


def ddp_with_experts_and_uneven_rows_has_the_losses_of_one_process(place: Path) -> None:
    lose_alike(place, 20, batch=3, micro_batch=1, model=BALANCED)


def refused(place: Path, **train) -> str:
    try:
        trainer(place, **train)
    except ConfigError as error:
        return error.problem
    raise AssertionError("it was not refused")


def biases_of_experts_in_pieces_are_refused_in_a_line(place: Path) -> None:
    said = refused(place / "run", parallel="fsdp", model=BALANCED)
    assert said == "model.balance_rate is 0.01, but train.parallel fsdp divides what it moves"


def parts_of_experts_are_refused_in_a_line(place: Path) -> None:
    assert refused(place / "run", tensor_parallel=2, model=MIXED) == "train.tensor_parallel divides no experts"


def tensor_parallel_has_the_losses_of_one_process(place: Path) -> None:
    lose_alike(place, 30, tensor_parallel=2)


def tensor_parallel_has_the_logits_and_gradients_of_the_plain_model(place: Path) -> None:
    one, many = alone(place / "one", clip=None), trainer(place / "many", tensor_parallel=2, clip=None)
    tokens_BT = random_rows(3).tokens_NT
    torch.testing.assert_close(many.model(tokens_BT), one.model(tokens_BT), atol=1e-5, rtol=0)
    for each in (one, many):
        each.parallel.update = lambda optimizers: None
        each.normalise_gradients = lambda units: 1.0
        each.parameters = []  # gradients stay as they are found
        each.step()
    for (name, plain), divided in zip(one.model.named_parameters(), many.model.parameters(), strict=True):
        assert plain.grad is not None and divided.grad is not None
        whole = divided.grad.full_tensor() if hasattr(divided.grad, "full_tensor") else divided.grad
        torch.testing.assert_close(whole, plain.grad, atol=1e-4, rtol=1e-5, msg=name)


def zero1_divides_the_state_of_the_optimizer(place: Path) -> None:
    one, many = alone(place / "one"), trainer(place / "many", parallel="zero1")
    for each in (one, many):
        each.step()
    whole, own = (
        sum(value.numel() for o in each.optimizers for state in o.state.values() for value in state.values())
        for each in (one, many)
    )
    assert 0.4 * whole < own < 0.6 * whole
    assert abs(many.parallel.world.sum([own])[0] - whole) < 100


def fsdp_divides_weights_and_state(place: Path) -> None:
    one, many = alone(place / "one"), trainer(place / "many", parallel="fsdp")
    for each in (one, many):
        each.step()
    held = sum(parameter.to_local().numel() for parameter in many.model.parameters())
    assert held <= 0.51 * sum(parameter.numel() for parameter in one.model.parameters())
    own = sum(value.numel() for o in many.optimizers for state in o.state.values() for value in state.values())
    assert own < 0.6 * sum(v.numel() for o in one.optimizers for state in o.state.values() for v in state.values())


def resume_in_the_same_bits(place: Path, **train) -> None:
    whole = trainer(place / "whole", steps=6, **train)
    whole.train()
    cut = trainer(place / "cut", steps=6, **train)
    for _ in range(3):
        cut.run_step()
    cut.save(background=True)
    cut.run_step()  # the state moves on while it is written
    cut.checkpoints.wait()
    again = trainer(place / "cut", steps=6, **train)
    assert again.resume() == 3
    again.train()
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(again), strict=True))


def weights(one: Trainer) -> list[torch.Tensor]:
    model = one.parallel.whole_model()
    return [parameter.detach().clone() for parameter in model.parameters()] if model is not None else []


def fsdp_with_muon_resumes_in_the_same_bits(place: Path) -> None:
    resume_in_the_same_bits(place, parallel="fsdp")


def zero1_resumes_in_the_same_bits(place: Path) -> None:
    resume_in_the_same_bits(place, parallel="zero1")


def fsdp_with_experts_resumes_in_the_same_bits(place: Path) -> None:
    resume_in_the_same_bits(place, parallel="fsdp", model=MIXED)


def zero1_with_balanced_experts_resumes_in_the_same_bits(place: Path) -> None:
    resume_in_the_same_bits(place, parallel="zero1", model=BALANCED)


def tensor_parallel_resumes_in_the_same_bits(place: Path) -> None:
    resume_in_the_same_bits(place, tensor_parallel=2)


def a_run_of_one_process_goes_on_with_two_and_back(place: Path) -> None:
    steady = alone(place / "steady", steps=9)
    for _ in range(9):
        steady.run_step()
    first = alone(place / f"run{dist.get_rank()}", steps=9)
    for _ in range(3):
        first.run_step()
    first.save()
    run = place / "run0"
    World.here().wait()
    for number, parallel in enumerate(("fsdp", "zero1", "ddp"), start=1):
        next_ = trainer(run, steps=9, parallel=parallel)
        assert next_.resume() == 2 + number
        next_.run_step()
        next_.save()
    World.here().wait()
    last = alone(run, steps=9)
    if dist.get_rank() == 0:
        assert last.resume() == 6
        assert all(torch.equal(a, b) for a, b in zip(weights(last), weights(next_), strict=True))
        for _ in range(3):
            last.run_step()
        for one, other in zip(weights(last), weights(steady), strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=0)
        states = (
            [o.state[p] for o in each.optimizers for group in o.param_groups for p in group["params"]]
            for each in (last, steady)
        )
        for one, other in zip(*states, strict=True):
            assert one.keys() == other.keys() and one
            for key in one:
                torch.testing.assert_close(one[key], other[key], atol=1e-4, rtol=1e-3)
    World.here().wait()


def each_process_writes_a_part_of_a_checkpoint(place: Path) -> None:
    many = trainer(place / "run", parallel="ddp")
    many.run_step()
    many.save()
    files = sorted(many.checkpoints.path(1).glob("*.safetensors"))
    assert len(files) == 2 and all(file.stat().st_size > 10_000 for file in files)


def a_request_to_one_process_stops_all_at_the_same_step(place: Path) -> None:
    many = trainer(place / "run", steps=9)
    run_step = many.run_step

    def asked_at_2() -> None:
        run_step()
        if dist.get_rank() == 1 and many.progress.step == 2:
            signal.raise_signal(signal.SIGINT)

    many.run_step = asked_at_2  # type: ignore[method-assign]
    assert not many.train() and many.interrupted
    assert many.progress.step == 2 and many.checkpoints.steps() == [2]


def a_full_disk_of_one_process_is_told_to_all_and_leaves_the_previous_checkpoint(place: Path) -> None:
    many = trainer(place / "run", steps=9)
    many.run_step()
    many.save()
    many.run_step()
    write = checkpoint.write_state

    def full(*given) -> None:
        if dist.get_rank() == 1:
            given = (Path("/proc/nowhere"), *given[1:])
        write(*given)

    checkpoint.write_state = full
    try:
        many.save(background=True)
        many.run_step()
        try:
            many.save()
        except (StorageError, PeerError):
            pass
        else:
            raise AssertionError("nobody was told")
    finally:
        checkpoint.write_state = write
    World.here().wait()
    assert many.checkpoints.steps() == [1]
    assert not list(many.checkpoints.folder.glob(".*"))
    assert trainer(place / "run", steps=9).resume() == 1


def records_are_written_by_one_process(place: Path) -> None:
    trainer(place / "run", steps=3, batch=4).train()
    steps = [json.loads(line)["step"] for line in (place / "run" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [0, 1, 1, 2, 2, 3, 3]


def two_pairs_with_all_weights_each_have_the_losses_of_one_process(place: Path) -> None:
    """Hybrid sharding."""
    lose_alike(place, 20, parallel="fsdp", shard_group=2)


def two_pairs_with_all_weights_each_resume_in_the_same_bits(place: Path) -> None:
    resume_in_the_same_bits(place, parallel="fsdp", shard_group=2)


def two_by_two_divide_weights_and_matrices_with_the_losses_of_one_process(place: Path) -> None:
    """FSDP2 across, tensor parallelism along."""
    lose_alike(place, 20, parallel="fsdp", tensor_parallel=2)


def two_by_two_copies_and_matrices_have_the_losses_of_one_process(place: Path) -> None:
    lose_alike(place, 20, parallel="ddp", tensor_parallel=2)


ALL = {
    name: promise
    for name, promise in list(globals().items())
    if callable(promise) and promise.__module__ == __name__ and "_" in name and name.count("_") > 3
}
ALL.pop("resume_in_the_same_bits")
PROMISES = {
    4: {name: promise for name, promise in ALL.items() if name.startswith(("two_pairs_", "two_by_two_"))},
    2: {name: promise for name, promise in ALL.items() if not name.startswith(("two_pairs_", "two_by_two_"))},
}
"""By the number of processes."""


def keep(rank: int, count: int, port: int, place: Path) -> None:
    """Runs every promise of so many processes; what came of each is a line of `outcome.RANK`."""
    names = {"RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in names.items()}
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    with (place / f"outcome.{rank}").open("w") as file:
        for name, promise in PROMISES[count].items():
            error = None
            (place / name).mkdir(exist_ok=True)
            try:
                promise(place / name)
            except Exception:
                error = traceback.format_exc()
            file.write(json.dumps([name, error]) + "\n")
            file.flush()
    dist.destroy_process_group()
