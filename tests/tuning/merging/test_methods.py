"""Each method against its paper's formula, written out number by number."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from seedbed.tuning.merging.averages import linear, model_stock, slerp
from seedbed.tuning.merging.changes import elected, largest, middle, random
from seedbed.tuning.merging.config import MergeConfig
from seedbed.tuning.merging.recipe import merge_tensor, merged

VALUES = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=12)
"""Small whole numbers: many are alike, or nought."""


def drawn(count: int, *shape: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(count)]


def config(method: str, models: int = 2, **options) -> MergeConfig:
    return MergeConfig(
        models=[Path(str(number)) for number in range(models)],
        out=Path("out"),
        base=None if method in ("linear", "slerp") else Path("base"),
        method=method,  # type: ignore[arg-type]
        arithmetic="fp64",
        **options,
    )


def test_linear_is_the_weighted_mean():
    a, b = drawn(2, 3, 4)
    torch.testing.assert_close(linear([a, b], [3.0, 1.0], normalize=True), 0.75 * a + 0.25 * b)
    torch.testing.assert_close(linear([a, b], [3.0, 1.0], normalize=False), 3 * a + b)


def test_slerp_goes_along_the_circle():
    """Of two unit vectors at 90°, a third of the way is at 30°; lengths are mixed by the same factors."""
    a, b = torch.tensor([1.0, 0.0]).double(), torch.tensor([0.0, 1.0]).double()
    expected = torch.tensor([math.cos(math.pi / 6), math.sin(math.pi / 6)]).double()
    torch.testing.assert_close(slerp(a, b, 1 / 3), expected)
    torch.testing.assert_close(slerp(2 * a, b, 1 / 3), expected * torch.tensor([2.0, 1.0]))


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_slerp_between_parallel_tensors_or_from_nought_is_straight(t):
    (a,) = drawn(1, 5)
    for b in (a, 2 * a, -a, torch.zeros_like(a)):
        torch.testing.assert_close(slerp(a, b, t), (1 - t) * a + t * b)


def test_slerp_begins_and_ends_at_the_models():
    a, b = drawn(2, 4, 4)
    torch.testing.assert_close(slerp(a, b, 0.0), a)
    torch.testing.assert_close(slerp(a, b, 1.0), b)


def test_task_arithmetic_adds_what_was_learned():
    base, a, b = drawn(3, 4)
    found = merge_tensor(config("task_arithmetic", scale=0.5), [1.0, -2.0], "x", base, [a, b])
    torch.testing.assert_close(found, base + 0.5 * ((a - base) - 2 * (b - base)))


# TIES -----------------------------------------------------------------------------------------------------------------


def trimmed_by_hand(values: list[float], density: float) -> list[float]:
    kept = max(1, int(density * len(values)))
    least = sorted(map(abs, values), reverse=True)[kept - 1]
    return [value if abs(value) >= least else 0.0 for value in values]


def elected_by_hand(changes: list[list[float]], weights: list[float], normalize: bool) -> list[float]:
    result: list[float] = []
    for column in zip(*changes, strict=True):
        vote = sum(weight * value for weight, value in zip(weights, column, strict=True))
        winners = [(w, v) for w, v in zip(weights, column, strict=True) if (w * v > 0 if vote >= 0 else w * v < 0)]
        total = float(sum(w * v for w, v in winners))
        share = sum(w for w, _ in winners)
        result.append(total / share if normalize and share else total)
    return result


@given(VALUES, st.sampled_from([0.1, 0.2, 0.5, 0.99, 1.0]))
def test_trimming_keeps_the_largest_and_all_that_are_as_large(values, density):
    assert largest(torch.tensor(values), density).tolist() == trimmed_by_hand(values, density)


@given(
    st.integers(1, 4).flatmap(
        lambda n: st.lists(st.lists(st.integers(-3, 3).map(float), min_size=n, max_size=n), min_size=1, max_size=4)
    ),
    st.booleans(),
)
def test_the_sign_with_more_weight_wins_and_only_its_changes_count(changes, normalize):
    weights = [1.0, 2.0, -0.5, 4.0][: len(changes)]
    found = elected([torch.tensor(change) for change in changes], weights, normalize)
    torch.testing.assert_close(found, torch.tensor(elected_by_hand(changes, weights, normalize)))


def test_ties_as_in_figure_1_of_the_paper():
    """Two agree on a parameter and one does not: the mean of the two, not of the three."""
    base = torch.zeros(3, dtype=torch.float64)
    models = [torch.tensor(row).double() for row in ([3.0, 0.1, -2.0], [5.0, -4.0, -1.0], [-2.0, -2.0, 4.0])]
    found = merge_tensor(config("ties", 3, density=0.67), [1.0, 1.0, 1.0], "x", base, models)
    # Trimmed to the two largest: [3, 0, −2], [5, −4, 0], [−2, −2, 4] (where −2 and −2 are alike, both stay).
    torch.testing.assert_close(found, torch.tensor([4.0, -3.0, 4.0]).double())


@pytest.mark.parametrize("value", [0.0, 0.25, -0.25])
@pytest.mark.parametrize("shape", [(1,), (7,), (3, 5)])
def test_ties_of_equal_tensors_is_that_tensor(value, shape):
    """All models alike, and all their changes: nothing is trimmed for its place, nothing divided by nought."""
    base = torch.full(shape, 1.5, dtype=torch.float64)
    models = [base + value] * 3
    assert torch.equal(merge_tensor(config("ties", 3), [1.0] * 3, "x", base, models), base + value)


def test_ties_of_changes_that_cancel_is_one_of_them_and_no_nan():
    """A vote of nought goes to the positive, as in the authors' code."""
    base = torch.zeros(2)
    found = merge_tensor(config("ties", density=1.0), [1.0, 1.0], "x", base, [base + 1, base - 1])
    assert found.tolist() == [1.0, 1.0]


# DARE, breadcrumbs, model stock --------------------------------------------------------------------------------------


def test_dare_keeps_a_random_part_and_what_is_expected():
    change = torch.ones(200, 500, dtype=torch.float64)
    kept = random(change, 0.2, torch.Generator().manual_seed(0))
    assert set(kept.unique().tolist()) == {0.0, 5.0}
    assert abs((kept != 0).double().mean() - 0.2) < 0.01 and abs(kept.mean() - 1) < 0.05


def test_dare_with_everything_kept_is_task_arithmetic():
    base, a, b = drawn(3, 6)
    found = merge_tensor(config("dare", density=1.0), [0.7, 0.6], "x", base, [a, b])
    torch.testing.assert_close(found, merge_tensor(config("task_arithmetic"), [0.7, 0.6], "x", base, [a, b]))


def test_dare_draws_for_each_tensor_and_model_by_seed_alone():
    base, a, b = drawn(3, 40)
    one = merge_tensor(config("dare"), [1.0, 1.0], "x", base, [a, b])
    assert torch.equal(one, merge_tensor(config("dare"), [1.0, 1.0], "x", base, [a, b]))
    for other, name in ((config("dare", seed=1), "x"), (config("dare"), "y")):
        assert not torch.equal(one, merge_tensor(other, [1.0, 1.0], name, base, [a, b]))
    alike = merge_tensor(config("dare"), [1.0, 1.0], "x", torch.zeros_like(a), [a, a])
    assert set((alike / a).round(decimals=6).unique().tolist()) == {0.0, 2.0, 4.0}


def test_dare_ties_elects_signs_of_what_is_left():
    base, a, b = drawn(3, 40)
    merge = config("dare_ties", density=1.0, normalize=True)
    torch.testing.assert_close(
        merge_tensor(merge, [1.0, 1.0], "x", base, [a, b]), base + elected([a - base, b - base], [1.0, 1.0], True)
    )


@given(st.permutations([float(value) for value in range(1, 11)]))
def test_breadcrumbs_leaves_out_the_largest_and_the_smallest(values):
    """Of ten, one largest at outliers 0.1, and with density 0.6 three of the smallest."""
    found = middle(torch.tensor(values), 0.6, 0.1)
    assert found.tolist() == [value if 4 <= value <= 9 else 0.0 for value in values]


@given(VALUES, st.floats(0.1, 0.9), st.floats(0, 0.1))
def test_breadcrumbs_keeps_its_density(values, density, outliers):
    change = torch.tensor(values) + 10
    count = len(values)
    assert int((middle(change, density, outliers) != 0).sum()) == min(
        int(density * count), count - int(outliers * count)
    )


def test_model_stock_by_its_formula():
    base, a, b, c = drawn(4, 3, 5)
    changes = [(x - base).flatten() for x in (a, b, c)]
    a, b, c = (base + base.norm() * 0.1 + 0.3 * change.view(3, 5) for change in changes)  # so that they agree somewhat
    pairs = [(a, b), (a, c), (b, c)]
    cosine = (
        sum(float(torch.cosine_similarity((x - base).flatten(), (y - base).flatten(), dim=0)) for x, y in pairs) / 3
    )
    assert 0.1 < cosine < 0.95
    t = 3 * cosine / (1 + 2 * cosine)
    torch.testing.assert_close(model_stock(base, [a, b, c]), t * (a + b + c) / 3 + (1 - t) * base)


def test_model_stock_of_models_that_agree_is_their_mean_and_of_those_that_do_not_the_base():
    base, a = drawn(2, 6)
    torch.testing.assert_close(model_stock(base, [a, a]), a)
    torch.testing.assert_close(model_stock(base, [a, 2 * base - a]), base)
    assert torch.equal(model_stock(base, [base, base]), base)


@pytest.mark.parametrize("seed", range(4))
def test_model_stock_never_goes_behind_the_base(seed):
    """Where two changes are more than at right angles, as by the formula it would."""
    base, change, other = drawn(3, 6, seed=seed)
    against = -change + 0.8 * other
    assert torch.cosine_similarity(change, against, dim=0) < -0.05
    torch.testing.assert_close(model_stock(base, [base + change, base + against]), base)


def test_the_same_model_several_times_is_that_model():
    base, a = drawn(2, 5, 5)
    for method in ("linear", "slerp", "ties", "model_stock"):
        found = merge_tensor(
            config(method, **({"density": 1.0} if method == "ties" else {})), [1.0, 1.0], "x", base, [a, a]
        )
        torch.testing.assert_close(found, a)


def test_the_weights_of_added_changes_may_be_normalized():
    base, a, b = drawn(3, 3)
    found = merge_tensor(config("task_arithmetic", normalize=True), [3.0, 1.0], "x", base, [a, b])
    torch.testing.assert_close(found, base + 0.75 * (a - base) + 0.25 * (b - base))


def test_the_result_has_the_numbers_of_the_base():
    """bf16 models are merged in fp32, then rounded once."""
    base, a, b = ({"x": tensor.bfloat16()} for tensor in drawn(3, 64))
    merge = MergeConfig(models=[Path("a"), Path("b")], base=Path("c"), out=Path("o"), method="task_arithmetic")
    found = merged(merge, [0.5, 0.5], base, [a, b])["x"]
    assert found.dtype == torch.bfloat16
    assert torch.equal(
        found,
        (
            base["x"].float() + 0.5 * (a["x"].float() - base["x"].float()) + 0.5 * (b["x"].float() - base["x"].float())
        ).bfloat16(),
    )
