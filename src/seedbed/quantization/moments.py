"""What layers are multiplied with on sample text: their second moments, which is all that calibration has to know.

Shape suffixes: N inputs, D their width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from seedbed.model.transformer import Transformer
from seedbed.quantization.walk import Part


class _Enough(Exception):
    """All that was to be seen has been seen: the rest of the part need not be computed."""


def readers(model: Transformer, part: Part, names: Sequence[str]) -> list[list[str]]:
    """The named layers of a part, in the order in which they are read; those that read the same stand together."""
    first: dict[str, Tensor] = {}  # held, so that no other tensor gets its place in memory
    with _seen(model, names, first.__setitem__):
        part.batches[0]()
    together: dict[tuple[int, int], list[str]] = {}
    for name, x in first.items():
        together.setdefault((x.data_ptr(), x.shape[-1]), []).append(name)
    return list(together.values())


def second_moments(model: Transformer, part: Part, name: str) -> Tensor:
    """Σ x·xᵀ (D, D) over all inputs of a layer, in fp64."""
    found: list[Tensor] = []

    def add(_: str, x: Tensor) -> None:
        x_ND = x.reshape(-1, x.shape[-1]).float()
        product_DD = (x_ND.T @ x_ND).double()
        found[:] = [found[0] + product_DD if found else product_DD]
        raise _Enough

    with _seen(model, [name], add):
        for batch in part.batches:
            try:
                batch()
            except _Enough:
                continue
    return found[0]


@contextmanager
def _seen(model: Transformer, names: Sequence[str], look: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Within it, what comes to each named layer is looked at first."""

    def hook_of(name: str) -> Callable[[nn.Module, Any], None]:
        return lambda _, given: look(name, given[0])

    hooks = [model.get_submodule(name).register_forward_pre_hook(hook_of(name)) for name in names]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
