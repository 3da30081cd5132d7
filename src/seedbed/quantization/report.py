"""What quantization cost, as numbers, as a table and as a card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from seedbed.quantization.convert import Loss
from seedbed.runs import words

COLUMNS = ("layer", "stored as", "bytes", "weights off by", "outputs off by")


def layers_of(losses: Mapping[str, Loss]) -> dict[str, Any]:
    """Of each layer, for result.json."""
    return {
        name: {
            "scheme": loss.storage.scheme,
            "bytes": loss.bytes,
            "weights_error": loss.weights,
            "outputs_error": loss.outputs,
        }
        for name, loss in losses.items()
    }


def table(result: Mapping[str, Any]) -> str:
    """The layers, and below them sizes and perplexities."""
    rows = [COLUMNS] + [
        (name, row["scheme"], f"{row['bytes']:,}", _percent(row["weights_error"]), _percent(row["outputs_error"]))
        for name, row in result["layers"].items()
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)), *cells]).rstrip()
        for row in (rows if len(rows) > 1 else [])
        for cells in [[cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]]
    ]
    return "\n".join([*lines, *([""] if lines else []), *summary(result)])


def summary(result: Mapping[str, Any]) -> list[str]:
    """Size and perplexity, a sentence each."""
    said = [
        f"{result['bytes'] / 1e6:,.1f} MB instead of {result['fp32_bytes'] / 1e6:,.1f} MB in fp32: "
        f"{_percent(result['share'])}"
    ]
    if (found := result["perplexity"]) is not None:
        said.append(
            f"perplexity {words.value(found['after'])} instead of {words.value(found['before'])}: "
            f"{100 * found['change']:+.2f}%, over {found['tokens']:,} tokens"
        )
    return said


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f}%"
