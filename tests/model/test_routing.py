"""The losses and statistics of routers are their formulas, one document at a time."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seedbed.model.experts import Routing
from seedbed.model.routing import (
    Documents,
    balance_experts,
    find_routers,
    load_metrics,
    router_terms,
    routing_statistics,
    routings_of,
)
from tests.random_models import random_model


def random_routing(tokens: int, experts: int, active: int, seed: int, score: str = "softmax") -> Routing:
    logits = torch.randn(tokens, experts, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    scores = logits.softmax(-1) if score == "softmax" else logits.sigmoid()
    chosen = scores.topk(active).indices
    return Routing(logits, scores, chosen, scores.gather(-1, chosen))


@given(
    st.lists(st.lists(st.integers(-1, 2), min_size=6, max_size=6), min_size=1, max_size=3),
    st.integers(2, 5),
    st.integers(1, 2),
    st.sampled_from(["softmax", "sigmoid"]),
    st.integers(0, 2**32),
)
def test_the_losses_are_their_formulas(segments, experts, active, score, seed):
    segments_BT = torch.tensor(segments)
    routing = random_routing(segments_BT.numel(), experts, active, seed, score)
    documents = Documents.of(segments_BT, segments_BT)
    terms = router_terms(routing, documents)
    loads = [0] * experts
    most = max(-1, int(segments_BT.max())) + 1
    for document in range(documents.count):
        row, segment = divmod(document, most)
        tokens = [row * 6 + t for t in range(6) if segments[row][t] == segment]
        balance = z = 0.0
        for e in range(experts):
            chose = sum(e in routing.chosen_NC[t].tolist() for t in tokens)
            loads[e] += chose
            mean = sum(float(routing.scores_NE[t, e] / routing.scores_NE[t].sum()) for t in tokens) / max(
                1, len(tokens)
            )
            balance += experts / active * (chose / max(1, len(tokens))) * mean
        for t in tokens:
            z += math.log(sum(math.exp(logit) for logit in routing.logits_NE[t].tolist())) ** 2 / len(tokens)
        assert float(terms.balance_G[document]) == pytest.approx(balance, abs=1e-10)
        assert float(terms.z_G[document]) == pytest.approx(z, abs=1e-10)
    assert terms.loads_E.tolist() == loads


def test_even_loads_cost_1_and_one_busy_expert_costs_as_many_as_there_are():
    rows = Documents.of(torch.zeros(1, 8), None)
    even = torch.eye(4, dtype=torch.float64).repeat(2, 1)
    chosen = torch.arange(4).repeat(2)[:, None]
    assert float(router_terms(Routing(even, even, chosen, even), rows).balance_G) == pytest.approx(1)
    one = torch.eye(4, dtype=torch.float64)[[2] * 8]
    assert float(router_terms(Routing(one, one, torch.full((8, 1), 2), one), rows).balance_G) == pytest.approx(4)


def test_routers_are_only_looked_at_inside():
    model = random_model(experts=4, layers=3, experts_every=2, experts_active=2)
    tokens = torch.randint(50, (2, 9))
    with routings_of(model) as routings:
        model(tokens)
    assert list(routings) == [1] and routings[1].chosen_NC.shape == (18, 2)
    routings.clear()
    model(tokens)
    assert not routings


def test_statistics_tell_loads_entropy_and_dead_experts():
    model = random_model(experts=4, layers=1, experts_active=1)
    router = find_routers(model)[0]
    with torch.no_grad():
        router.weight.zero_()  # all alike: the first expert is chosen, by chance or not
    with routings_of(model) as routings:
        model(torch.randint(50, (2, 9)))
    found = routing_statistics(routings)
    assert found["router_entropy/block_0"] == pytest.approx(math.log(4))
    assert found["experts_dead/block_0"] == 3
    assert sorted(found[f"expert_load/block_0/{expert}"] for expert in range(4)) == [0, 0, 0, 4]


def test_loads_are_read_off_totals():
    totals = {"bytes": 3.0, **{f"load/1/{e}": load for e, load in enumerate([6.0, 0.0, 3.0])}, "load/2/0": 5.0}
    assert load_metrics(totals) == {"expert_load_max": 2.0, "experts_dead": 1}
    assert load_metrics({"bytes": 3.0}) == {}


def test_biases_stay_where_no_loads_were_counted():
    model = random_model(experts=4, balance_rate=0.5)
    before = [router.bias.clone() for router in find_routers(model).values()]
    balance_experts(model, {"bytes": 1.0})
    assert all(torch.equal(old, r.bias) for old, r in zip(before, find_routers(model).values(), strict=True))
