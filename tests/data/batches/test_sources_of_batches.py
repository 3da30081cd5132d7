"""Every source of batches: a sample is a pure function of its index, and nothing is lost or repeated."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seedbed.data.batches.batch import IGNORE, TokenBatch
from seedbed.data.batches.best_fit import BestFitSource
from seedbed.data.batches.curriculum import LengthCurriculum
from seedbed.data.batches.infilling import MARKS, Infilling
from seedbed.data.batches.loader import WindowSource
from seedbed.data.batches.masking import Masking
from seedbed.data.batches.mixture import BLOCK, CYCLE, MixtureSource, Phase
from seedbed.data.batches.packing import PackedSource
from seedbed.data.batches.prefetch import Prefetch
from seedbed.data.batches.prefixes import Prefixes
from seedbed.data.tokens import StoreWriter, TokenStore
from seedbed.errors import ConfigError, CorruptionError, DataError
from seedbed.runs import new_folder, open_folder
from seedbed.tokenizers.bytes import build
from tests.tiny import Rows

PARTS = ("tokens_BT", "targets_BT", "segments_BT", "positions_BT", "prefix_B")


def same(a: TokenBatch, b: TokenBatch) -> bool:
    pairs = [(getattr(a, name), getattr(b, name)) for name in PARTS]
    return all((x is None and y is None) or torch.equal(x, y) for x, y in pairs)


def joined(batches: list[TokenBatch]) -> TokenBatch:
    def cat(name):
        parts = [getattr(batch, name) for batch in batches]
        return None if parts[0] is None else torch.cat(parts)

    return TokenBatch(*map(cat, PARTS))


def make_store(folder, lengths: list[int], seed: int = 0) -> TokenStore:
    """Documents of so many tokens, <s> and </s> among them."""
    chance, tokenizer = np.random.default_rng(seed), build()
    with new_folder(folder, "tokens") as staging:
        (staging / "tokenizer").mkdir()
        tokenizer.save(staging / "tokenizer")
        with StoreWriter(staging, "train", tokenizer) as writer:
            for length in lengths:
                writer.add(chance.integers(10, 200, max(length - 2, 0)).astype(np.uint32), max(length - 2, 0))
    return TokenStore(folder, "train", open_folder(folder, "tokens"))


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> TokenStore:
    chance = random.Random(0)
    lengths = [min(int(chance.lognormvariate(3.5, 1.2)) + 2, 900) for _ in range(400)]
    return make_store(tmp_path_factory.mktemp("s") / "tokens", lengths)


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> TokenStore:
    return make_store(tmp_path_factory.mktemp("o") / "tokens", [50] * 200, seed=1)


@pytest.fixture(scope="module")
def marked():
    """A tokenizer with the marks of infilling."""
    return build().with_tokens(MARKS)


@pytest.fixture(scope="module")
def sources(store, other, marked):
    windows = WindowSource(store, 32, seed=1)
    isolated = WindowSource(store, 32, seed=2, isolate=True, stride=20)
    best_fit = BestFitSource(store, 32, seed=3, pad_id=0)
    phases = [Phase(0, (0.7, 0.2, 0.1)), Phase(700, (0.0, 1.0, 0.003)), Phase(3000, (1, 1, 1))]
    mixture = MixtureSource([windows, WindowSource(other, 32, seed=5), best_fit], phases, 5000, seed=9)
    encoded = [(np.arange(n) % 200 + 10, np.arange(n) % 3 > 0) for n in (5, 9, 30, 17, 32, 8) * 20]
    return {
        "windows": windows,
        "isolated": isolated,
        "best fit": best_fit,
        "packed": PackedSource(encoded, 32, seed=4, pad_id=0),
        "mixture": mixture,
        "infilling": Infilling(windows, marked, 0.5, seed=7),
        "masking": Masking(isolated, marked, 0.15, seed=8),
        "prefetched": Prefetch(mixture, workers=3),
        "curriculum": LengthCurriculum(windows, 32, [(0, 8), (4000, 32)]),
        "cut and masked": Masking(LengthCurriculum(isolated, 32, [(0, 8), (4000, 32)]), marked, 0.15, seed=8),
        "prefixes": Prefixes(best_fit, seed=11),
        "cut and prefixed": Prefixes(LengthCurriculum(windows, 32, [(0, 8), (4000, 32)]), seed=11),
        "prefixes mixed": MixtureSource(
            [Prefixes(windows, seed=12), Prefixes(best_fit, seed=12)], [Phase(0, (1, 2))], 5000, seed=9
        ),
    }


NAMES = ["windows", "isolated", "best fit", "packed", "mixture", "infilling", "masking", "prefetched", "curriculum"]
NAMES += ["cut and masked", "prefixes", "cut and prefixed", "prefixes mixed"]


@pytest.mark.parametrize("name", NAMES)
def test_the_stream_goes_on_at_any_sample_with_any_batch_size(sources, name):
    """As after a resume at 50 random steps, on other batch sizes, or dealt out among ranks."""
    source, chance = sources[name], random.Random(1)
    whole = joined([source.batch(first, 8) for first in range(0, 3600, 8)])
    per_sample = len(whole.tokens_BT) // 3600
    for _ in range(50):
        first, count = chance.randrange(3500), chance.randrange(1, 60)
        cuts = sorted({0, count, *(chance.randrange(count + 1) for _ in range(3))})
        parts = joined([source.batch(first + a, b - a) for a, b in itertools.pairwise(cuts)])
        rows = slice(first * per_sample, (first + count) * per_sample)
        wanted = [getattr(whole, part) for part in PARTS]
        assert same(parts, TokenBatch(*(None if part is None else part[rows] for part in wanted)))


@pytest.mark.parametrize("name", NAMES)
def test_the_fingerprint_tells_what_the_samples_depend_on(sources, name):
    prints = [source.fingerprint for source in sources.values()]
    assert sources[name].fingerprint == sources[name].fingerprint
    assert len(set(prints)) == len(prints) - 1  # prefetching changes nothing
    assert sources["prefetched"].fingerprint == sources["mixture"].fingerprint


# Windows -------------------------------------------------------------------------------------------------------------


@given(lengths=st.lists(st.integers(2, 12), min_size=4, max_size=20), length=st.integers(1, 9), data=st.data())
@settings(max_examples=40)
def test_an_isolated_window_sees_no_other_document(tmp_path_factory, lengths, length, data):
    store = make_store(tmp_path_factory.mktemp("p") / "tokens", lengths)
    stride = data.draw(st.integers(1, 12))
    if store.n_tokens < length + 1:
        return
    source = WindowSource(store, length, 0, stride=stride, isolate=True)
    assert source.samples == len(range(0, store.n_tokens - length, stride))
    batch = source.batch(0, source.samples)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    for row, window in enumerate(source.windows(0, source.samples) * stride):
        mine = owner[window : window + length + 1]
        assert batch.segments_BT[row].tolist() == (mine[:-1] - mine[0]).tolist()
        position = Counter()
        for t in range(length):
            assert batch.positions_BT[row, t] == position[mine[t]]
            position[mine[t]] += 1
            inside = mine[t] == mine[t + 1]
            token = int(store.read(window + t + 1, window + t + 2)[0])
            assert batch.targets_BT[row, t] == (token if inside else IGNORE)


# Best fit ------------------------------------------------------------------------------------------------------------


@given(lengths=st.lists(st.integers(2, 40), min_size=1, max_size=30), length=st.integers(2, 17))
@settings(max_examples=40)
def test_best_fit_loses_and_repeats_no_target(tmp_path_factory, lengths, length):
    store = make_store(tmp_path_factory.mktemp("p") / "tokens", lengths)
    source = BestFitSource(store, length, seed=1, pad_id=0)
    batch = source.batch(0, source.samples)
    found = Counter()
    for b in range(source.samples):
        for t in range(length):
            target = int(batch.targets_BT[b, t])
            if target != IGNORE:
                assert batch.segments_BT[b, t] == batch.segments_BT[b, t + 1]
                assert batch.tokens_BT[b, t + 1] == target
                found[(int(batch.tokens_BT[b, t]), target)] += 1
    pairs = Counter()
    for document in range(store.n_docs):
        tokens = store.documents(document).tolist()
        pairs.update(itertools.pairwise(tokens))
    assert found == pairs
    padding = float((batch.segments_BT < 0).float().mean())
    assert source.report["padding"] == pytest.approx(padding, abs=1e-6) and source.report["cropped"] == 0
    assert source.report["cut"] == pytest.approx(np.mean(np.array(lengths) > length))


def test_best_fit_reads_no_changed_byte(tmp_path):
    store = make_store(tmp_path / "tokens", [40] * 20)
    with open(store.path, "r+b") as file:
        file.seek(100)
        file.write(b"\xff")
    with pytest.raises(CorruptionError, match="was changed"):
        BestFitSource(store, 32, seed=0, pad_id=0).batch(0, 4)


def test_best_fit_leaves_little_room(store):
    assert BestFitSource(store, 256, seed=0, pad_id=0).report["padding"] < 0.01


# Mixtures ------------------------------------------------------------------------------------------------------------


@given(
    weights=st.lists(st.floats(0, 10), min_size=1, max_size=6).filter(lambda w: sum(w) > 0.1),
    switch=st.integers(1, 5000),
    seed=st.integers(0, 3),
)
@settings(max_examples=30)
def test_proportions_are_exact_to_one_sample_in_every_block_and_no_sample_is_left_out(weights, switch, seed):
    share = np.array(weights) / sum(weights)
    if share[share > 0].min() < 1 / (BLOCK * CYCLE):
        return
    stubs = [None] * len(weights)
    mixture = MixtureSource(stubs, [Phase(0, tuple(weights)), Phase(switch, tuple(weights[::-1]))], 1, seed)
    chosen, places = mixture.places(0, switch + 3 * BLOCK)
    for first, wanted in ((0, share), (switch, share[::-1])):
        for block in range(0, (switch if first == 0 else 3 * BLOCK) // BLOCK):
            part = chosen[first + block * BLOCK : first + (block + 1) * BLOCK]
            counts = np.bincount(part, minlength=len(weights))
            assert (np.abs(counts - wanted * BLOCK) < 1 + 1e-6).all()
    for source in range(len(weights)):
        assert places[chosen == source].tolist() == list(range((chosen == source).sum()))


def test_a_source_of_little_weight_still_comes():
    mixture = MixtureSource([None, None], [Phase(0, (1, 1e-4))], 1, seed=0)
    chosen, _ = mixture.places(0, 30_000)
    assert 2 <= (chosen == 1).sum() <= 4


@pytest.mark.parametrize("blocks", [37, 500, CYCLE, 3 * CYCLE + 700])
def test_rounding_loses_no_source_its_share_however_long_the_run(blocks):
    """Where a sample comes in its source says how many came before."""
    weights = (0.7, 0.0013, 0.1234567, 0.0, 0.25)
    chosen, places = MixtureSource([None] * 5, [Phase(0, weights)], 1, seed=0).places(blocks * BLOCK, BLOCK)
    for source, weight in enumerate(weights):
        if weight:
            wanted = blocks * BLOCK * weight / sum(weights)
            assert places[chosen == source][0] == pytest.approx(wanted, abs=4)


def test_packed_rows_and_plain_ones_mix_and_keep_their_targets():
    """As in fine-tuning with replay: of a packed row half is learned, of a plain one every token."""
    mask = np.arange(6) >= 3
    packed = PackedSource([(np.full(6, i, dtype=np.uint32), mask) for i in range(10)], 6, 0, pad_id=0)
    tokens_NT = torch.arange(100, 104)[:, None].expand(4, 6)
    batch = MixtureSource([packed, Rows(tokens_NT, tokens_NT)], [Phase(0, (1, 1))], 20, seed=0).batch(0, 20)
    plain_B = batch.tokens_BT[:, 0] >= 100
    targets_B = (batch.targets_BT != IGNORE).sum(1)
    assert 5 < plain_B.sum() < 15
    assert set(targets_B[plain_B].tolist()) == {6} and set(targets_B[~plain_B].tolist()) == {3}
    assert torch.equal(batch.positions_BT, torch.arange(6).expand(20, 6)) and not batch.segments_BT.any()


def test_a_mixture_tells_which_rows_the_learner_said():
    class Own(Rows):
        def batch(self, first: int, count: int) -> TokenBatch:
            return replace(super().batch(first, count), own_B=torch.ones(count).bool())

    tokens_NT = torch.arange(8)[:, None].expand(8, 6)
    mixed = MixtureSource([Rows(tokens_NT, tokens_NT), Own(tokens_NT + 100, tokens_NT)], [Phase(0, (1, 1))], 20, seed=0)
    batch = mixed.batch(0, 20).to("cpu")
    assert torch.equal(batch.own_B, batch.tokens_BT[:, 0] >= 100) and 5 < batch.own_B.sum() < 15
    assert MixtureSource([Rows(tokens_NT, tokens_NT)], [Phase(0, (1,))], 20, seed=0).batch(0, 4).own_B is None


def test_a_mixture_is_mixed_inside_a_block():
    chosen, _ = MixtureSource([None, None], [Phase(0, (1, 1))], 1, seed=0).places(0, 1000)
    runs = np.diff(np.flatnonzero(np.diff(chosen)))
    assert 1.5 < runs.mean() < 2.5 and runs.max() < 15


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ([Phase(0, (1,))], "as many weights"),
        ([Phase(0, (1, -1))], "weights must be"),
        ([Phase(0, (0, 0))], "weights must be"),
        ([Phase(0, (float("nan"), 1))], "weights must be"),
        ([Phase(5, (1, 1))], "from the first sample on"),
        ([Phase(0, (1, 1)), Phase(0, (1, 1))], "must follow"),
        ([Phase(0, (1, 1e-9))], "leave that source out"),
    ],
)
def test_mixtures_that_make_no_sense_are_refused(phases, message):
    with pytest.raises(ConfigError, match=message):
        MixtureSource([None, None], phases, 1, seed=0)


# Curriculum, infilling, masking --------------------------------------------------------------------------------------


def test_a_curriculum_changes_the_rows_and_not_the_data(sources):
    plain, short = sources["windows"].batch(40, 4), sources["curriculum"].batch(40, 4)
    assert short.tokens_BT.shape == (16, 8) and short.units == plain.units
    assert torch.equal(short.tokens_BT.flatten(), plain.tokens_BT.flatten())
    assert same(sources["curriculum"].batch(4000, 4), sources["windows"].batch(4000, 4))
    with pytest.raises(ValueError, match="inside one batch"):
        sources["curriculum"].batch(3999, 2)


def test_positions_begin_again_in_the_rows_that_a_curriculum_cuts(sources):
    source = LengthCurriculum(sources["isolated"], 32, [(0, 8)])
    batch, begins = source.batch(0, 100), 0
    assert batch.tokens_BT.shape == (400, 8)
    for segments, positions in zip(batch.segments_BT.tolist(), batch.positions_BT.tolist(), strict=True):
        wanted = [t - segments.index(segment) for t, segment in enumerate(segments)]
        assert positions == wanted
        begins += wanted.count(0) > 1
    assert begins > 20  # rows in which a document begins


@pytest.mark.parametrize("phases", [[], [(1, 8)], [(0, 8), (0, 16)], [(0, 5)], [(0, 0)]])
def test_curricula_that_make_no_sense_are_refused(sources, phases):
    with pytest.raises(ConfigError, match="curriculum"):
        LengthCurriculum(sources["windows"], 32, phases)


def test_infilling_moves_text_inside_its_document(sources, marked):
    plain, filled = sources["windows"].batch(0, 200), sources["infilling"].batch(0, 200)
    prefix, suffix, middle = (marked.special_ids[mark] for mark in MARKS)
    changed = 0
    for b in range(200):
        was = [*plain.tokens_BT[b].tolist(), int(plain.targets_BT[b, -1])]
        now = [*filled.tokens_BT[b].tolist(), int(filled.targets_BT[b, -1])]
        assert filled.tokens_BT[b, 1:].tolist() == filled.targets_BT[b, :-1].tolist()
        if was == now:
            continue
        changed += 1
        text = [token for token in now if token not in (prefix, suffix, middle)]
        # What is left is the row's own tokens, as many as there is room for.
        assert not Counter(text) - Counter(was)
        for a, b_, c in zip(
            *(np.flatnonzero(np.array(now) == mark) for mark in (prefix, suffix, middle)), strict=False
        ):
            assert a < b_ < c
    assert 60 < changed < 160  # most rows hold one or two documents, each changed half of the time


def test_infilled_text_can_be_put_together_again(tmp_path, marked):
    store = make_store(tmp_path / "tokens", [40] * 200)
    rows = Infilling(WindowSource(store, 39, 0, stride=40), marked, 1.0, seed=0).batch(0, 200)
    prefix, suffix, middle = (marked.special_ids[mark] for mark in MARKS)
    kinds = Counter()
    for b in range(200):
        row = [*rows.tokens_BT[b].tolist(), int(rows.targets_BT[b, -1])][1:]  # without <s>
        if middle not in row:  # the middle was two tokens or less, and fell off with its mark
            continue
        p, s, m = (row.index(mark) for mark in (prefix, suffix, middle))
        if s == p + 1:
            kinds["suffix first"] += 1
            text = row[m + 1 :] + row[s + 1 : m]
        else:
            kinds["prefix first"] += 1
            text = row[p + 1 : s] + row[m + 1 :] + row[s + 1 : m]
        original = next(
            d for d in (store.documents(i).tolist()[1:-1] for i in range(200)) if not Counter(text) - Counter(d)
        )
        if s != p + 1:  # the row's end lost three tokens of the middle or less
            missing = len(original) - len(text)
            head = len(row[p + 1 : s] + row[m + 1 :])
            assert missing <= 3 and original[:head] == text[:head] and original[head + missing :] == text[head:]
    assert min(kinds.values()) > 60


def test_masking_hides_what_it_should(sources, marked):
    plain, masked = sources["isolated"].batch(0, 400), sources["masking"].batch(0, 400)
    chosen = masked.targets_BT != IGNORE
    assert torch.equal(masked.targets_BT[chosen], plain.tokens_BT[chosen])
    assert torch.equal(masked.tokens_BT[~chosen], plain.tokens_BT[~chosen])
    special = torch.isin(plain.tokens_BT, torch.tensor(sorted(marked.special_ids.values())))
    assert not (chosen & special).any()
    per_row = (~special).sum(1)
    assert chosen.sum(1).tolist() == [max(1, round(0.15 * n)) for n in per_row.tolist()]
    hidden = (masked.tokens_BT[chosen] == marked.special_ids["<mask>"]).float().mean()
    same_ = (masked.tokens_BT[chosen] == plain.tokens_BT[chosen]).float().mean()
    assert hidden == pytest.approx(0.8, abs=0.03) and same_ == pytest.approx(0.1, abs=0.03)


def test_a_prefix_ends_anywhere_and_leaves_a_target(sources):
    plain, prefixed = sources["windows"].batch(0, 3200), Prefixes(sources["windows"], seed=13).batch(0, 3200)
    places = torch.arange(32)
    rest = places >= prefixed.prefix_B[:, None] - 1  # the last token of a prefix predicts the first behind it
    assert torch.equal(prefixed.targets_BT, plain.targets_BT.masked_fill(~rest, IGNORE))
    counts = torch.bincount(prefixed.prefix_B, minlength=33)
    assert counts[0] == 0 and counts[1:].min() > 60 and counts[1:].max() < 145


def test_a_prefix_in_a_padded_row_of_documents_leaves_a_target(sources):
    batch = sources["prefixes"].batch(0, 500)
    assert (batch.targets_BT != IGNORE).any(1).all() and len(set(batch.prefix_B.tolist())) > 20


def test_what_a_tokenizer_lacks_is_told(sources, marked):
    with pytest.raises(ConfigError, match="fim_prefix") as told:
        Infilling(sources["windows"], build(), 0.5, seed=0)
    assert "seedbed tokenizer --extra_tokens" in told.value.fix
    bare = build()
    bare.special_ids = {}
    with pytest.raises(ConfigError, match="<mask>"):
        Masking(sources["windows"], bare, 0.15, seed=0)


def test_too_little_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="length"):
        BestFitSource(None, 1, 0, 0)
    with pytest.raises(ConfigError, match="stride"):
        WindowSource(None, 4, 0, stride=0)
    with pytest.raises(DataError, match="fewer than one window"):
        WindowSource(make_store(tmp_path / "tokens", [4]), 10, 0)


def test_the_parts_of_a_mixture_are_the_rows_that_it_mixes(store, other):
    sources = [WindowSource(store, 16, 1), WindowSource(other, 16, 2)]
    mixed = MixtureSource(sources, [Phase(0, (3.0, 1.0))], 1000, seed=0, names=["a", "b"])
    rows = [
        row
        for source, count in mixed.parts(333).values()
        for row in (source.batch(0, count).tokens_BT.tolist() if count else [])
    ]
    assert sorted(rows) == sorted(mixed.batch(0, 333).tokens_BT.tolist())
    assert list(mixed.parts(333)) == ["a", "b"]
