"""Folders are whole or absent, say what they are made of, and notice every changed byte."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import seedbed.runs
from seedbed.errors import ConfigError, CorruptionError, DataError, StorageError
from seedbed.runs import (
    lock,
    new_folder,
    open_folder,
    read_manifest,
    remake,
    seal,
    sha256_file,
    sha256_json,
    verify_file,
    write_atomic,
    write_card,
    write_json,
    write_result,
    writing,
)
from tests.deaths import at_call, killed_at_call
from tests.disks import small_disk, unprivileged

SOURCE = str(Path(seedbed.runs.__file__).parents[2])


def make(out: Path, text: str = "hello", **options) -> Path:
    with new_folder(out, "corpus", **options) as folder:
        (folder / "a.txt").write_text(text)
        (folder / "deep er").mkdir()
        (folder / "deep er" / "é.txt").write_text("x" * 100)
    return out


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Another Python with seedbed at hand; its first line of output says that it is where it should be."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": SOURCE},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


FILLING = """
import sys
from pathlib import Path
from seedbed.runs import new_folder
with new_folder(sys.argv[1], "corpus") as folder:
    (folder / "a.txt").write_text("of the other process")
    print("ready", flush=True)
    sys.stdin.readline()
"""


# Files


def test_write_atomic_replaces_the_whole_file_and_leaves_no_other(tmp_path):
    write_atomic(tmp_path / "x", "old")
    write_atomic(tmp_path / "x", b"new")
    assert (tmp_path / "x").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["x"]


def test_write_atomic_that_fails_keeps_the_old_file(tmp_path, monkeypatch):
    write_atomic(tmp_path / "x", "old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(StorageError, match=r"no space left"):
        write_atomic(tmp_path / "x", "new")
    assert (tmp_path / "x").read_text() == "old"
    assert os.listdir(tmp_path) == ["x"]


def test_write_atomic_follows_a_link(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_atomic(tmp_path / "link", "text")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "text"


def test_json_keeps_the_order_of_keys_and_refuses_nan(tmp_path):
    write_json(tmp_path / "x.json", {"b": 1, "a": "é"})
    assert (tmp_path / "x.json").read_text() == '{\n  "b": 1,\n  "a": "é"\n}\n'
    with pytest.raises(ValueError, match=r"JSON"):
        write_json(tmp_path / "y.json", {"a": float("nan")})
    assert os.listdir(tmp_path) == ["x.json"]


def test_hash_of_json_does_not_depend_on_the_order_of_keys():
    assert sha256_json({"a": 1, "b": 2}) == sha256_json({"b": 2, "a": 1}) != sha256_json({"a": 1, "b": 3})


def test_a_card_has_a_title_headings_and_points(tmp_path):
    write_card(tmp_path, "Corpus", {"What": ["one", "two"], "Why": "because\n"})
    assert (tmp_path / "README.md").read_text() == "# Corpus\n\n## What\n\n- one\n- two\n\n## Why\n\nbecause\n"


# New folders


def test_a_new_folder_is_invisible_until_it_is_whole(tmp_path):
    out = tmp_path / "a name with spaces é" / "out"
    with new_folder(out, "corpus") as folder:
        (folder / "a").write_text("x")
        assert not out.exists()
        assert folder.parent == out.parent
    assert sorted(os.listdir(out)) == ["a", "manifest.json"]
    assert os.listdir(out.parent) == ["out"]
    assert open_folder(out, "corpus", verify="all").files["a"].bytes == 1


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_nothing_not_even_the_folders_above(tmp_path, error):
    with pytest.raises(error), new_folder(tmp_path / "made" / "for" / "out", "corpus") as folder:
        (folder / "a").write_text("x")
        raise error
    assert os.listdir(tmp_path) == []


def test_a_failure_keeps_folders_above_that_someone_else_uses(tmp_path):
    with pytest.raises(ValueError), new_folder(tmp_path / "made" / "out", "corpus"):
        (tmp_path / "made" / "other").write_text("x")
        raise ValueError
    assert os.listdir(tmp_path / "made") == ["other"]


def test_an_occupied_folder_is_refused_and_untouched(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    for options in ({}, {"overwrite": True}):  # overwriting is for what seedbed made
        with pytest.raises(ConfigError, match=str(tmp_path / "out")), new_folder(tmp_path / "out", "corpus", **options):
            pytest.fail("the block must not run")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match=r"is a file"), new_folder(tmp_path / "file", "corpus"):
        pytest.fail("the block must not run")
    assert sorted(os.listdir(tmp_path)) == ["file", "out"]
    assert os.listdir(tmp_path / "out") == ["mine"]


def test_an_empty_folder_may_be_filled(tmp_path):
    (tmp_path / "out").mkdir()
    make(tmp_path / "out")
    assert open_folder(tmp_path / "out", "corpus").kind == "corpus"


def test_overwriting_swaps_only_once_the_new_one_is_whole(tmp_path):
    out = make(tmp_path / "out", "old")
    with pytest.raises(ValueError), new_folder(out, "corpus", overwrite=True) as folder:
        (folder / "a.txt").write_text("new")
        raise ValueError
    assert (out / "a.txt").read_text() == "old"
    make(out, "new", overwrite=True)
    assert (out / "a.txt").read_text() == "new"
    assert os.listdir(tmp_path) == ["out"]


def test_a_swap_that_was_killed_halfway_is_undone_by_the_next_call(tmp_path):
    out = make(tmp_path / "out", "old")
    os.rename(out, tmp_path / f".out.replaced-{dead_pid()}")
    with pytest.raises(ConfigError, match=r"exists"):
        make(out, "new")
    assert (out / "a.txt").read_text() == "old"


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_link_to_a_folder_is_filled_where_it_points(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    make(tmp_path / "link" / "out")
    assert (tmp_path / "real" / "out" / "manifest.json").is_file()
    (tmp_path / "ahead").symlink_to(tmp_path / "later")
    make(tmp_path / "ahead")
    assert (tmp_path / "later" / "manifest.json").is_file()
    assert (tmp_path / "ahead").is_symlink()


def test_a_killed_process_leaves_nothing_visible_and_the_next_call_cleans_up(tmp_path):
    process = start(FILLING, tmp_path / "out")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out").exists()
    assert len(os.listdir(tmp_path)) == 1  # hidden, unfinished
    make(tmp_path / "out")
    assert os.listdir(tmp_path) == ["out"]


def test_of_two_processes_on_one_folder_the_first_to_finish_wins_and_neither_is_harmed(tmp_path):
    process = start(FILLING, tmp_path / "out")
    make(tmp_path / "out", "of this process")
    _, code = process.communicate("go on\n")[1], process.returncode
    assert code != 0  # ConfigError: another process filled it meanwhile
    assert (tmp_path / "out" / "a.txt").read_text() == "of this process"
    assert os.listdir(tmp_path) == ["out"]


def test_a_live_process_keeps_its_unfinished_folder(tmp_path):
    process = start(FILLING, tmp_path / "out")
    with pytest.raises(ValueError), new_folder(tmp_path / "out", "corpus"):
        raise ValueError
    process.communicate("go on\n")
    assert process.returncode == 0
    assert (tmp_path / "out" / "a.txt").read_text() == "of the other process"


@pytest.mark.parametrize("overwrite", [False, True])
def test_killed_at_any_call_of_a_save_a_folder_is_absent_or_whole_and_the_next_save_works(overwrite, tmp_path):
    number, seen = 0, set()
    while True:
        number += 1
        place = tmp_path / str(number)
        out = make(place / "out", "old") if overwrite else place / "out"
        killed = killed_at_call(number, lambda: make(out, "new", overwrite=overwrite))  # noqa: B023 (done at once)
        text = None
        if out.exists():
            open_folder(out, "corpus", verify="all")
            text = (out / "a.txt").read_text()
        seen.add(text)
        if not killed:
            break
        if text is None and overwrite:  # between the two renames: the next call, even one that is refused, undoes it
            with pytest.raises(ConfigError, match="exists"):
                make(out, "next")
            assert (out / "a.txt").read_text() == "old"
        make(out, "next", overwrite=True)
        assert (out / "a.txt").read_text() == "next" and os.listdir(place) == ["out"]
    assert text == "new" and number > 10
    assert seen == ({"old", None, "new"} if overwrite else {None, "new"})


def test_interrupted_at_any_call_of_a_swap_the_folder_is_the_old_or_the_new_one(tmp_path):
    """Ctrl-C, unlike kill -9, leaves time to put the old one back at once."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    number, seen = 0, set()
    while "done" not in seen:
        number += 1
        out = make(tmp_path / str(number) / "out", "old")
        with contextlib.suppress(KeyboardInterrupt), at_call(number, interrupt):
            make(out, "new", overwrite=True)
            seen.add("done")
        open_folder(out, "corpus", verify="all")
        seen.add((out / "a.txt").read_text())
        assert not [name for name in os.listdir(out.parent) if ".partial-" in name]
    assert seen == {"old", "new", "done"}


# Disks that refuse


def test_a_read_only_disk_is_named(tmp_path, monkeypatch):
    def refuse(path: object, *given: object, **named: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    (tmp_path / "run").mkdir()
    for name in ("mkdir", "open"):
        monkeypatch.setattr(os, name, refuse)
    monkeypatch.setattr("builtins.open", refuse)
    for act in (
        lambda: make(tmp_path / "out"),
        lambda: make(tmp_path / "deep" / "out"),
        lambda: write_atomic(tmp_path / "file", "x"),
        lambda: lock(tmp_path / "run").__enter__(),
        lambda: lock(tmp_path / "new run").__enter__(),
    ):
        with pytest.raises(StorageError, match=f"{tmp_path}.* is on a read-only file system"):
            act()
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["run"] and os.listdir(tmp_path / "run") == []


def test_a_full_disk_is_named_and_nothing_is_left(tmp_path):
    place = tmp_path / "disk"
    with small_disk(place):
        with pytest.raises(StorageError, match=r"no space left|larger than files may be"):
            make(place / "out", "x" * (1 << 20))
        with pytest.raises(StorageError, match=r"no space left|larger than files may be"):
            write_atomic(place / "file", "x" * (1 << 20))
        assert os.listdir(place) == []
        make(place / "small")  # there is room again


def test_no_space_left_is_told_as_such():
    told = pytest.raises(StorageError, match=r"no space left on the disk while writing there")
    with told, writing("there"), open("/dev/full", "wb", buffering=0) as file:
        file.write(b"x")


def test_a_folder_this_user_may_not_write_is_named(tmp_path):
    place = tmp_path / "theirs"
    place.mkdir()
    with unprivileged(place):
        for act in (
            lambda: make(place / "out"),
            lambda: make(place / "deep" / "out"),
            lambda: write_atomic(place / "file", "x"),
            lambda: lock(place / "run").__enter__(),
        ):
            with pytest.raises(StorageError, match=f"may not write {place}"):
                act()
        assert os.listdir(place) == []


# Manifests


def test_a_manifest_names_content_not_place_or_time(tmp_path):
    one, two = make(tmp_path / "one", config={"rate": 0.1}), make(tmp_path / "two", config={"rate": 0.1})
    assert (one / "manifest.json").read_bytes() == (two / "manifest.json").read_bytes()
    assert read_manifest(one).hash != read_manifest(make(tmp_path / "three", config={"rate": 0.2})).hash
    assert read_manifest(one).hash != read_manifest(make(tmp_path / "four", "other")).hash


def test_inputs_are_named_by_their_hashes_and_may_be_learned_on_the_way(tmp_path):
    first = make(tmp_path / "first")
    (tmp_path / "raw.txt").write_text("x")
    inputs: dict[str, Path | str] = {"folder": first, "file": tmp_path / "raw.txt"}
    with new_folder(tmp_path / "second", "tokens", inputs=inputs):
        inputs["known"] = "0" * 64
    manifest = open_folder(tmp_path / "second", ("run", "tokens"))
    assert manifest.inputs["folder"] == read_manifest(first).hash
    assert manifest.inputs["file"] == "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    assert manifest.inputs["known"] == "0" * 64
    with pytest.raises(ValueError, match=r"Path"), new_folder(tmp_path / "third", "x", inputs={"a": str(first)}):
        pass
    with pytest.raises(DataError, match=r"nowhere"), new_folder(tmp_path / "4", "x", inputs={"a": Path("nowhere")}):
        pass


def test_files_with_clocks_are_left_out_and_may_change(tmp_path):
    with new_folder(tmp_path / "run", "run") as folder:
        (folder / "weights").write_text("x")
        (folder / "training.log").write_text("now")
        write_result(folder, {"seconds": 1})
        write_card(folder, "Run", {})
    write_result(tmp_path / "run", {"seconds": 2})
    assert list(open_folder(tmp_path / "run", "run", verify="all").files) == ["weights"]


def test_a_folder_filled_in_place_is_complete_once_sealed(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match=r"not complete"):
        open_folder(tmp_path, "run")
    manifest = seal(tmp_path, "run", {}, {"steps": (1, 2)})
    assert open_folder(tmp_path, "run") == manifest
    assert manifest.config == {"steps": [1, 2]}


def test_every_changed_byte_of_a_manifest_is_found(tmp_path):
    path = make(tmp_path / "out", config={"rate": 1e-5, "name": "é"}) / "manifest.json"
    raw = path.read_bytes()
    chance = random.Random(0)
    for position in range(len(raw)):
        broken = bytearray(raw)
        broken[position] ^= 1 << chance.randrange(8)
        path.write_bytes(broken)
        with pytest.raises(CorruptionError, match=r"manifest.json was changed"):
            open_folder(path.parent, "corpus")
    for broken in (raw[:-1], raw + b"\n", raw[: len(raw) // 2], b"", b"[" * 100_000, b"null", b'{"files": 3}'):
        path.write_bytes(broken)
        with pytest.raises(CorruptionError, match=r"manifest.json was changed"):
            open_folder(path.parent, "corpus")


@pytest.mark.parametrize("name", ["../a.txt", "/etc/hostname", "", "a\0b"])
def test_a_manifest_cannot_point_outside_its_folder(tmp_path, name):
    """Not even to a file that is there and has the hash: a read must not leave the folder."""
    (tmp_path / "a.txt").write_text("hello")
    (tmp_path / "in").mkdir()
    forged = seedbed.runs.Manifest("corpus", {name: seedbed.runs.FileRecord(5, sha256_file(tmp_path / "a.txt"))})
    (tmp_path / "in" / "manifest.json").write_text(forged.render())
    with pytest.raises(CorruptionError, match=r"manifest\.json was changed"):
        open_folder(tmp_path / "in", "corpus")


def test_missing_cut_grown_and_changed_files_are_named_with_what_was_promised(tmp_path):
    out = make(tmp_path / "out")
    cases = {b"hell": "holds 4 bytes .* promises 5: the file is cut off", b"hello!": "holds 6 bytes .* promises 5"}
    for content, message in cases.items():
        (out / "a.txt").write_bytes(content)
        with pytest.raises(CorruptionError, match=f"a.txt {message}") as raised:
            open_folder(out, "corpus")
        assert f"make it again: seedbed prepare --source SOURCE --out {out}" in str(raised.value)
    (out / "a.txt").write_bytes(b"jello")
    manifest = open_folder(out, "corpus")
    for check in (lambda: verify_file(out, manifest, "a.txt"), lambda: open_folder(out, "corpus", verify="all")):
        with pytest.raises(CorruptionError, match=r"a.txt was changed: its SHA-256 is"):
            check()
    (out / "a.txt").unlink()
    for check in (lambda: verify_file(out, manifest, "a.txt"), lambda: open_folder(out, "corpus")):
        with pytest.raises(CorruptionError, match=r"a.txt"):
            check()


def test_the_command_that_made_a_folder_is_what_makes_it_again(tmp_path):
    with new_folder(tmp_path / "out", "corpus") as folder:
        (folder / "a").write_text("x")
        write_result(folder, {"command": "seedbed prepare --source books --out out"})
    (tmp_path / "out" / "a").unlink()
    with pytest.raises(CorruptionError, match=r"again: seedbed prepare --source books --out out$"):
        open_folder(tmp_path / "out", "corpus")


@pytest.mark.parametrize(
    "command",
    [
        "seedbed prepare; rm -rf ~",
        "seedbed prepare --source $(id)",
        "seedbed prepare --source `id`",
        "seedbed prepare --source 'a",
        "seedbed prepare > ~/.bashrc",
        "seedbed prepare \n id",
        "seedbed prepare \u202e",
        "seedbed prepare --source " + "a" * 1000,
        "seedbedx prepare",
        "rm -rf .",
    ],
)
def test_a_command_that_does_more_than_run_seedbed_is_not_shown(tmp_path, command):
    out = make(tmp_path / "out")
    (out / "result.json").write_text(json.dumps({"command": command}))
    assert (
        remake(out, "corpus") == f"Remove that folder, then make it again: seedbed prepare --source SOURCE --out {out}"
    )


def test_what_is_not_the_folder_wanted_is_told_apart(tmp_path):
    out = make(tmp_path / "out")
    with pytest.raises(DataError, match=r"is a corpus folder; a run or model folder is needed"):
        open_folder(out, ("run", "model"))
    with pytest.raises(DataError, match=r"does not exist\nMake it: seedbed tokenize"):
        open_folder(tmp_path / "nowhere", "tokens")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no manifest.json"):
        open_folder(tmp_path / "empty", "corpus")


def test_what_a_person_has_is_never_named_as_the_place_to_write_to(tmp_path):
    text, folder = tmp_path / "my text.txt", tmp_path / "texts"
    text.write_text("a"), folder.mkdir()
    for there in (text, folder):
        with pytest.raises(DataError) as caught:
            open_folder(there, "corpus")
        assert caught.value.fix == f"Make one: seedbed prepare --source {shlex.quote(str(there))} --out CORPUS"
        with pytest.raises(DataError) as caught:
            open_folder(there, "tokens")
        assert caught.value.fix == "Make one: seedbed tokenize --corpus CORPUS --tokenizer TOKENIZER --out TOKENS"
    with pytest.raises(DataError, match=r"my text.txt is a file; a tokens folder is needed here"):
        open_folder(text, "tokens")


# Locks

HOLDING = """
import sys
from seedbed.runs import lock
with lock(sys.argv[1]):
    print("ready", flush=True)
    sys.stdin.readline()
"""


def test_a_second_process_is_refused_at_once_and_told_who_holds_the_folder(tmp_path):
    process = start(HOLDING, tmp_path / "run")
    with pytest.raises(StorageError, match=f"in use by process {process.pid} on"), lock(tmp_path / "run"):
        pytest.fail("the block must not run")
    process.communicate("go on\n")
    with lock(tmp_path / "run"):
        pass


def test_a_killed_process_holds_nothing(tmp_path):
    process = start(HOLDING, tmp_path / "run")
    process.kill()
    process.wait()
    with lock(tmp_path / "run"), pytest.raises(StorageError, match=f"process {os.getpid()}"), lock(tmp_path / "run"):
        pytest.fail("the block must not run")
