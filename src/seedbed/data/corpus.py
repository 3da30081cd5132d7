"""The corpus folder: documents in compressed shards, split into training and validation, that describe themselves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from seedbed.data.sources.records import Document
from seedbed.errors import CorruptionError
from seedbed.runs import Manifest, open_folder, read_json, remake, verify_file
from seedbed.shards import RowWriter, read_rows, render_row

SHARD_BYTES = 20 << 20
"""A shard ends once it holds this much uncompressed: about five million tokens."""

Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = ("train", "val")


@dataclass(frozen=True)
class Corpus:
    """A corpus folder, opened."""

    folder: Path
    manifest: Manifest
    stats: dict[str, Any]
    """stats.json: how many documents and bytes each split has, and what was mended, masked and dropped."""

    @classmethod
    def open(cls, folder: Path | str, verify: Literal["sizes", "all"] = "sizes") -> Corpus:
        """Checks the folder and its files; see `open_folder` for the errors."""
        folder = Path(folder)
        manifest = open_folder(folder, "corpus", verify)
        for name in ("stats.json", *(f"{split}-00000.jsonl.zst" for split in SPLITS)):
            if name not in manifest.files:
                raise CorruptionError(f"{folder / 'manifest.json'} lists no {name}", remake(folder, "corpus"))
        verify_file(folder, manifest, "stats.json")
        return cls(folder, manifest, read_json(folder / "stats.json"))

    def shards(self, split: Split) -> list[str]:
        """Names of a split's files, in order."""
        return [name for name in sorted(self.manifest.files) if name.startswith(f"{split}-")]

    def documents(self, split: Split) -> Iterator[Document]:
        """The documents of a split, in order. A shard that is not what was written is a CorruptionError."""
        for name in self.shards(split):
            verify_file(self.folder, self.manifest, name)
            for row in read_rows(self.folder / name):
                yield Document(row["text"], row["source"])


class ShardWriter:
    """Writes one split's documents into numbered shards."""

    def __init__(self, folder: Path, split: Split):
        self.folder, self.split = folder, split
        self.documents = self.bytes = self.shards = 0
        self._writer: RowWriter | None = None

    def write(self, document: Document) -> None:
        """Writes a document as a row."""
        row = render_row({"text": document.text, "source": document.name}, document.name)
        self.write_row(row, len(document.text.encode()))

    def write_row(self, row: bytes, text_bytes: int) -> None:
        """Writes a row that was rendered before, as lines of a unit are; its text has so many bytes."""
        if self._writer is None:
            self._writer = RowWriter(self.folder / f"{self.split}-{self.shards:05d}.jsonl.zst").__enter__()
            self.shards += 1
        self._writer.write_line(row)
        self.documents += 1
        self.bytes += text_bytes
        if self._writer.bytes >= SHARD_BYTES:
            self.close()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
