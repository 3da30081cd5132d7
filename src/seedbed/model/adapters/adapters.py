"""Several adapters over one model, by name."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import nn

from seedbed.errors import DataError
from seedbed.model.adapters.adapted import Adapted, Addition, Moment, Wearers
from seedbed.model.adapters.changes import Change, LowRank
from seedbed.model.adapters.folder import ALONE
from seedbed.model.packed.adapted import PackedAdapted
from seedbed.model.packed.attention import PackedAttention
from seedbed.model.packed.feedforward import PackedFeedForward
from seedbed.model.transformer import Transformer
from seedbed.native.library import available


class Adapters:
    """Those that rows of a pass may wear."""

    def __init__(self, model: Transformer, adapters: Mapping[str, Mapping[str, Change]]):
        """Puts an `Adapted` into the place of each layer of a model, packed or not, that one of them changes."""
        self.numbers = {name: number for number, name in enumerate(adapters)}
        self.moment = Moment()
        self.device = model.device
        by_kernel = model.device.type == "cpu" and model.dtype == torch.float32 and available()
        additions: dict[tuple[nn.Module, str], list[Addition]] = defaultdict(list)
        for name, layers in adapters.items():
            for layer, change in layers.items():
                if not isinstance(change, LowRank) or change.magnitude_O is not None:
                    raise DataError(f"{name} does more than to add: rows beside others cannot wear it", ALONE)
                parent, attribute, first = _place(model, layer)
                up_OR = (change.up_OR.double() * change.scale).to(model.device, model.dtype)
                additions[parent, attribute].append(
                    Addition(self.numbers[name], first, change.down_RD.to(model.device, model.dtype), up_OR)
                )
        for (parent, attribute), some in additions.items():
            kind = PackedAdapted if by_kernel else Adapted
            setattr(parent, attribute, kind(getattr(parent, attribute), some, self.moment))

    def check(self, name: str | None) -> None:
        """DataError for the name of none."""
        if name is not None and name not in self.numbers:
            there = f"there are {', '.join(self.numbers)}" if self.numbers else "the model was opened without any"
            raise DataError(f"there is no adapter {name[:60]!r}: {there}")

    @contextlib.contextmanager
    def worn(self, counts: Iterable[tuple[str | None, int]]) -> Iterator[None]:
        """Inside, the rows of a pass wear those: so many rows the first, then so many the next; None: nothing."""
        rows: dict[str, list[int]] = defaultdict(list)
        first = 0
        for name, count in counts:
            if name is not None:
                rows[name] += range(first, first + count)
            first += count
        self.moment.wearers = self._wearers(rows) if rows else None
        try:
            yield
        finally:
            self.moment.wearers = None

    def _wearers(self, rows: Mapping[str, list[int]]) -> Wearers:
        each = [rows.get(name, []) for name in self.numbers]
        starts_A = torch.tensor([0, *map(len, each)]).cumsum(0)
        return Wearers(torch.tensor([row for some in each for row in some], device=self.device), starts_A)


def _place(model: Transformer, layer: str) -> tuple[nn.Module, str, int]:
    """Whose attribute computes a layer, and from which of its outputs on."""
    name, _, attribute = layer.rpartition(".")
    parent = model.get_submodule(name)
    if isinstance(parent, PackedAttention | PackedFeedForward):
        return parent, *parent.place(attribute)
    return parent, attribute, 0
