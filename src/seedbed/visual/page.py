"""A page for people, written once and shown as Markdown and as one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from seedbed.runs import write_atomic

STYLE = (
    ":root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;"
    "padding:0 1rem}"
    "table{border-collapse:collapse;margin:1rem 0}th,td{padding:.3rem .8rem;border-bottom:1px solid #8886}"
    "th,td{text-align:left}"
    "td.number,th.number{text-align:right;font-variant-numeric:tabular-nums}pre{background:#8882;padding:.8rem;"
    "white-space:pre-wrap;overflow-wrap:anywhere}svg{max-width:100%;height:auto}"
)


@dataclass(frozen=True)
class Heading:
    """The title of what follows."""

    text: str

    def markdown(self, folder: Path) -> str:
        return f"## {self.text}"

    def html(self) -> str:
        return f"<h2>{escape(self.text)}</h2>"


@dataclass(frozen=True)
class Paragraph:
    """Some sentences."""

    text: str

    def markdown(self, folder: Path) -> str:
        return self.text

    def html(self) -> str:
        return f"<p>{escape(self.text)}</p>"


@dataclass(frozen=True)
class Table:
    """Rows under a header. All columns but the first are set as numbers when `numbers` says so."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: bool = True

    def markdown(self, folder: Path) -> str:
        rule = ["---"] + ["---:" if self.numbers else "---"] * (len(self.header) - 1)
        cells = [[" ".join(cell.splitlines()).replace("|", "\\|") for cell in row] for row in (self.header, *self.rows)]
        lines = [cells[0], rule, *cells[1:]]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def html(self) -> str:
        body = "".join(self._row("td", row) for row in self.rows)
        return f"<table><thead>{self._row('th', self.header)}</thead><tbody>{body}</tbody></table>"

    def _row(self, tag: str, cells: Sequence[str]) -> str:
        marks = [""] + [' class="number"' if self.numbers else ""] * (len(cells) - 1)
        inner = "".join(f"<{tag}{mark}>{escape(cell)}</{tag}>" for cell, mark in zip(cells, marks, strict=True))
        return f"<tr>{inner}</tr>"


@dataclass(frozen=True)
class Verbatim:
    """Text as it is, such as what a model said."""

    text: str

    def markdown(self, folder: Path) -> str:
        fence = "```"
        while fence in self.text:
            fence += "`"
        return f"{fence}text\n{self.text}\n{fence}"

    def html(self) -> str:
        return f"<pre>{escape(self.text)}</pre>"


@dataclass(frozen=True)
class Picture:
    """A drawing; beside the Markdown it is a file of its own."""

    name: str
    svg: str
    about: str

    def markdown(self, folder: Path) -> str:
        write_atomic(folder / f"{self.name}.svg", self.svg)
        return f"![{self.about}]({self.name}.svg)"

    def html(self) -> str:
        return f"<figure>{self.svg}</figure>"


Block = Heading | Paragraph | Table | Verbatim | Picture


@dataclass(frozen=True)
class Page:
    """A title and what stands under it."""

    title: str
    blocks: list[Block] = field(default_factory=list)

    def write(self, folder: Path, name: str) -> None:
        """Writes NAME.md, its pictures, and NAME.html, which needs nothing beside it."""
        body = "\n\n".join(block.markdown(folder) for block in self.blocks)
        write_atomic(folder / f"{name}.md", f"# {self.title}\n\n{body}\n")
        inner = "\n".join(block.html() for block in self.blocks)
        write_atomic(
            folder / f"{name}.html",
            '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
            f'<meta name="viewport" content="width=device-width"><title>{escape(self.title)}</title>'
            f"<style>{STYLE}</style></head>\n<body>\n<h1>{escape(self.title)}</h1>\n{inner}\n</body>\n</html>\n",
        )
