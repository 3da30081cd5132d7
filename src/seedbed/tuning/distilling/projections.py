"""Hidden states of a student in the width of its teacher, by linear maps that learn with it.

The hint of a wider teacher is compared with what a regressor makes of the student's state (FitNets: Romero et al. 2015,
arXiv:1412.6550, §2.2, eq. 3), here one matrix for each pair of blocks (TinyBERT: Jiao et al. 2020, arXiv:1909.10351,
eq. 8). The maps stand beside the student while it learns, so that optimizers, processes and checkpoints know them as
they know its weights; they are no part of it, and are not saved with it.

Shape suffixes: N target tokens, D the student's width, E the teacher's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seedbed.model.state import BESIDE
from seedbed.model.transformer import Transformer

NAME = BESIDE.removesuffix(".")


def put_projections(student: Transformer, count: int, width: int, seed: int) -> None:
    """Puts so many maps into a width beside the student; the same weights at every call, which keep the size of what
    goes through them."""
    generator = torch.Generator().manual_seed(seed)
    projections = nn.ModuleList()
    for _ in range(count):
        projection = nn.utils.skip_init(nn.Linear, student.config.width, width, bias=False)
        nn.init.normal_(projection.weight, std=student.config.width**-0.5, generator=generator)
        projections.append(projection)
    student.add_module(NAME, projections)


def projected(student: Transformer, number: int, states_ND: Tensor) -> Tensor:
    """The states (N, E) of one of the pairs, as its map makes them; as they are (N, D) where the student has none."""
    return student.get_submodule(f"{NAME}.{number}")(states_ND) if hasattr(student, NAME) else states_ND


def without_projections(student: Transformer) -> Transformer:
    """The student alone."""
    if hasattr(student, NAME):
        delattr(student, NAME)
    return student
