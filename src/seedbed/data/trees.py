"""Conversations from trees of messages, as Open Assistant publishes them (Köpf et al. 2023, arXiv:2304.07327).

A row is one message: `message_id`, `parent_id` (null at a root), `role`, `text`, and often `rank` (0 is the best of a
message's answers, null unranked) and `deleted`. Rows may come in any order.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seedbed.data.messages import SPEAKERS, Messages, Row, row_of, text_of
from seedbed.data.rows import naming, row_name
from seedbed.errors import DataError
from seedbed.runs import json_name
from seedbed.tokenizers.chat import check_messages

MOST_MESSAGES = 1_000_000
"""Messages of one file, six times all of Open Assistant's: they are held until all are read."""


@dataclass(frozen=True, slots=True)
class _Node:
    id: str
    parent: str | None
    message: dict[str, str]
    deleted: bool
    rank: float
    row: int


def is_tree_message(row: Any) -> bool:
    """Whether a row is a message of a tree."""
    return isinstance(row, Mapping) and {"message_id", "role", "text"} <= row.keys()


def read_trees(path: Path, rows: Iterable[tuple[int, Any]]) -> Iterator[tuple[int, Messages]]:
    """A conversation for each root, in the order of the roots, with the root's row: it follows the best-ranked answer
    (unranked ones come last, equals by their row) and ends with the assistant's last. Roots nobody answered give none,
    deleted messages count as not there, with all that follows them.

    Raises DataError, naming the row, for a message without its fields, an id that comes twice, a parent that is not in
    the file; and when no root was answered.
    """
    nodes: dict[str, _Node] = {}
    for number, value in rows:
        with naming(row_name(path, number)):
            node = _node(row_of(value), number)
            if node.id in nodes:
                raise DataError(f"its message_id {node.id!r} is also that of row {nodes[node.id].row:,}")
            if len(nodes) == MOST_MESSAGES:
                raise DataError(f"trees of more than {MOST_MESSAGES:,} messages in one file", "Split it between trees.")
        nodes[node.id] = node
    answers: dict[str | None, list[_Node]] = defaultdict(list)
    for node in nodes.values():
        if node.parent is not None and node.parent not in nodes:
            raise DataError(f"{row_name(path, node.row)}: its parent {node.parent!r} is not in the file")
        if not node.deleted:
            answers[node.parent].append(node)
    anything = False
    for root in answers[None]:
        messages = _best_branch(root, answers)
        if messages:
            anything = True
            with naming(row_name(path, root.row)):
                check_messages(messages)
            yield root.row, messages
    if not anything:
        raise DataError(f"{path} holds trees, but in none does an assistant answer")


def _node(row: Row, number: int) -> _Node:
    rank = row.get("rank", math.inf)
    if not isinstance(rank, int | float) or (abs(rank) > 2**53 and rank != math.inf):
        raise DataError(f"rank must be a number, got {json_name(rank)}")
    role = text_of(row, "role")
    return _Node(
        id=text_of(row, "message_id"),
        parent=text_of(row, "parent_id") if "parent_id" in row else None,
        message={"role": SPEAKERS.get(role, role), "content": text_of(row, "text")},
        deleted=bool(row.get("deleted")),
        rank=math.inf if math.isnan(rank) else rank,
        row=number,
    )


def _best_branch(root: _Node, answers: Mapping[str | None, list[_Node]]) -> Messages:
    """The messages from a root on, up to the last of the assistant."""
    branch = [root]
    while following := answers.get(branch[-1].id):
        branch.append(min(following, key=lambda node: (node.rank, node.row)))
    while branch and branch[-1].message["role"] != "assistant":
        branch.pop()
    return [dict(node.message) for node in branch]
