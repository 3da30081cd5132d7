"""Folders that describe themselves: atomic writes, manifests, lineage, cards and locks.

Every stage reads folders and writes one folder. A folder becomes visible under its name only when it is whole: it is
filled beside its place under a temporary name, its manifest is written last, and one rename puts it where it belongs.
The manifest holds the SHA-256 of every file, the exact configuration and the hashes of the inputs, so that a report can
be traced back to the raw text and a changed byte anywhere is found.
"""

from seedbed.runs.files import (
    sha256_file,
    sha256_json,
    storage_error,
    write_atomic,
    write_card,
    write_json,
    write_result,
    writing,
)
from seedbed.runs.folders import new_folder
from seedbed.runs.locks import lock
from seedbed.runs.manifest import (
    MANIFEST,
    FileRecord,
    Inputs,
    Manifest,
    command,
    input_hash,
    open_folder,
    read_manifest,
    refuse_unlisted,
    remake,
    seal,
    verify_file,
)
from seedbed.runs.reading import check_number, json_name, make_record, parse_json, read_json, read_record

__all__ = [
    "MANIFEST",
    "FileRecord",
    "Inputs",
    "Manifest",
    "check_number",
    "command",
    "input_hash",
    "json_name",
    "lock",
    "make_record",
    "new_folder",
    "open_folder",
    "parse_json",
    "read_json",
    "read_manifest",
    "read_record",
    "refuse_unlisted",
    "remake",
    "seal",
    "sha256_file",
    "sha256_json",
    "storage_error",
    "verify_file",
    "write_atomic",
    "write_card",
    "write_json",
    "write_result",
    "writing",
]
