"""Matrices that lie in pieces on several processes, each made whole on one of them.

Muon cannot move a piece of a matrix: its update comes from the singular vectors of the whole. So every matrix has an
owner, who receives the pieces of its gradient and weight, moves it, and sends the pieces of the new weight back. Each
process owns as much as the others, and sends and receives its own share only: three times the size of its pieces a
step, of whatever number of processes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from seedbed.training.parallel.replicas import balance

Piece = tuple[tuple[int, ...], tuple[int, ...]]
"""Where it begins in the whole, and its sizes."""


class Owners:
    """Who owns which of some matrices, and the way there and back."""

    def __init__(self, matrices: Sequence[Tensor]):
        """A meeting of all processes. What is orthogonalised costs about rows · columns · the smaller of both."""
        self.shapes = [tuple(matrix.shape) for matrix in matrices]
        self.rank, ranks = dist.get_rank(), range(dist.get_world_size())
        own = [_piece(matrix) for matrix in matrices]
        self.pieces: list[list[Piece]] = [own] * len(ranks)
        """By process and matrix."""
        dist.all_gather_object(self.pieces, own)
        owner = balance([math.prod(shape) * min(shape) for shape in self.shapes], len(ranks))
        self.owned = [number for number, rank in enumerate(owner) if rank == self.rank]
        # Where several processes hold the same piece the first of them sends it; all of them get the new one.
        first = [{self.pieces[rank][number]: rank for rank in reversed(ranks)} for number in range(len(matrices))]
        self.back = [[[n for n in range(len(matrices)) if owner[n] == o] for o in ranks] for _ in ranks]
        """By process and owner: the matrices whose pieces go there …"""
        self.there = [
            [[n for n in numbers if first[n][self.pieces[rank][n]] == rank] for numbers in self.back[rank]]
            for rank in ranks
        ]
        """… and come from there."""

    def gather(self, held: Sequence[Tensor]) -> dict[int, Tensor]:
        """From all pieces held here, by matrix: the whole matrices that are owned here, by number."""
        sent = [[held[number] for number in numbers] for numbers in self.there[self.rank]]
        numbers = [self.there[rank][self.rank] for rank in range(len(self.pieces))]
        received = self._exchange(sent, numbers, [self.pieces[rank] for rank in range(len(self.pieces))])
        whole = {number: held[0].new_empty(self.shapes[number]) for number in self.owned}
        for rank, pieces in enumerate(received):
            for number, piece in pieces.items():
                whole[number][_within(self.pieces[rank][number])] = piece
        return whole

    def scatter(self, whole: dict[int, Tensor], held: Sequence[Tensor]) -> None:
        """From the whole matrices owned here into all pieces held here."""
        sent = [
            [whole[number][_within(self.pieces[rank][number])] for number in self.back[rank][self.rank]]
            for rank in range(len(self.pieces))
        ]
        received = self._exchange(sent, self.back[self.rank], [self.pieces[self.rank]] * len(self.pieces))
        for pieces in received:
            for number, piece in pieces.items():
                held[number].copy_(piece)

    def _exchange(
        self, sent: list[list[Tensor]], numbers: list[list[int]], pieces: list[list[Piece]]
    ) -> list[dict[int, Tensor]]:
        """What comes from each process, when `sent` goes to each: pieces of the given matrices."""
        sizes = [[math.prod(pieces[rank][number][1]) for number in ones] for rank, ones in enumerate(numbers)]
        flat = torch.cat([tensor.reshape(-1) for tensors in sent for tensor in tensors] or [torch.empty(0)])
        received = flat.new_empty(sum(map(sum, sizes)))
        out, back = [sum(ones) for ones in sizes], [sum(tensor.numel() for tensor in tensors) for tensors in sent]
        dist.all_to_all_single(received, flat, out, back)
        return [
            {
                number: piece.view(pieces[rank][number][1])
                for number, piece in zip(numbers[rank], flat.split(sizes[rank]), strict=True)
            }
            for rank, flat in enumerate(received.split(out))
        ]


def _piece(matrix: Tensor) -> Piece:
    assert isinstance(matrix, DTensor)
    sizes, begins = compute_local_shape_and_global_offset(matrix.shape, matrix.device_mesh, matrix.placements)
    return tuple(begins), tuple(sizes)


def _within(piece: Piece) -> tuple[slice, ...]:
    return tuple(slice(begin, begin + size) for begin, size in zip(*piece, strict=True))
