"""Files are whole or not there, and one that is damaged, cut, swapped or foreign is never used."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import pickle
import signal
import stat
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from tests.damage import assert_noticed
from whence.errors import CorruptFile, InvalidInput, NotWritten
from whence.storage import (
    claim,
    clear_leftovers,
    digest,
    file_to_write,
    make_folder,
    read_arrays,
    read_manifest,
    write_arrays,
    write_bytes,
    write_manifest,
)
from whence.storage.locks import lock, unlock

PINNED = "68ba0710eab44cd28f8df76f7c261892e8c1f9ac2e22f37fa79305f55ca840fd"


def names(folder: Path) -> list[str]:
    """Return the names of all that a folder holds."""
    return sorted(path.name for path in folder.iterdir())


# Digests


def test_a_digest_sees_everything() -> None:
    x = torch.arange(6.0).reshape(2, 3)
    different = [
        digest(x),
        digest(x + 1),
        digest(x.double()),
        digest(x.reshape(3, 2)),
        digest(x.reshape(3, 2).T),
        digest(x, x),
        digest(x, "a"),
        digest("a", x),
        digest("ab"),
        digest("a", "b"),
        digest(torch.tensor(True)),
        digest(torch.zeros(0)),
        digest(torch.zeros(0, 2)),
        digest(x.bfloat16()),
        digest(np.array(["ab"])),
        digest("\udc80"),
    ]
    assert len(set(different)) == len(different)
    assert digest("ab") == PINNED, "what was begun today must be finished by another version"


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "uint8", "bool", "complex64"])
def test_memory_layout_and_library_do_not_count(dtype: str) -> None:
    array = np.arange(6).reshape(2, 3).astype(dtype)
    of_tensor = digest(torch.from_numpy(array))
    assert digest(array) == of_tensor
    assert digest(np.asfortranarray(array)) == of_tensor
    assert digest(torch.from_numpy(array.T.copy()).T) == of_tensor
    assert digest(array.astype(array.dtype.newbyteorder(">"))) == of_tensor
    assert digest(array[::-1][::-1]) == of_tensor


def test_objects_have_no_digest_and_no_file(tmp_path: Path) -> None:
    objects = np.array([1, "a"], dtype=object)
    with pytest.raises(InvalidInput, match="Got dtype object"):
        digest(objects)
    with pytest.raises(InvalidInput, match="Got dtype object"):
        write_arrays(tmp_path / "a.npz", "me", objects=objects)
    assert names(tmp_path) == []


# What is written is read back


@given(
    array=arrays_of.arrays(
        dtype=st.one_of(
            arrays_of.floating_dtypes(endianness="<"),
            arrays_of.integer_dtypes(),
            arrays_of.boolean_dtypes(),
            arrays_of.unicode_string_dtypes(),
        ),
        shape=arrays_of.array_shapes(min_dims=0, min_side=0),
    )
)
def test_arrays_come_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, array: np.ndarray[Any, Any]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.npz"
    write_arrays(path, "Ωwner", first=array, second=np.array([1.5]))
    found = read_arrays(path, "Ωwner")
    assert list(found) == ["first", "second"]
    assert found["first"].dtype == array.dtype
    assert found["first"].shape == array.shape
    assert found["first"].tobytes() == array.tobytes()


def test_the_same_arrays_are_the_same_file_which_numpy_reads(tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        write_arrays(tmp_path / name, "me", x=np.arange(3.0))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "a.npz") as archive:
        assert archive["x"].tolist() == [0, 1, 2]


def test_a_manifest_comes_back(tmp_path: Path) -> None:
    content = {"n": 3, "fraction": 0.1, "name": 'Ω"\udc80', "seeds": [1, 2**70], "none": None}
    write_manifest(tmp_path / "m.json", "training", content)
    assert read_manifest(tmp_path / "m.json", "training") == content
    assert list(json.loads((tmp_path / "m.json").read_bytes())) == [
        *("format", "kind"),
        *content,
        "digest",
    ]


# Damage


def test_every_bit_and_every_cut_of_small_files_is_noticed(tmp_path: Path) -> None:
    archive, manifest = tmp_path / "a.npz", tmp_path / "m.json"
    write_arrays(archive, "me", outcomes=np.array([0.5, -2.0]))
    write_manifest(manifest, "training", {"n": 3, "fraction": 0.5})
    assert_noticed(archive, lambda: read_arrays(archive, "me"))
    assert_noticed(manifest, lambda: read_manifest(manifest, "training"))
    assert read_arrays(archive, "me")["outcomes"].tolist() == [0.5, -2]
    assert read_manifest(manifest, "training") == {"n": 3, "fraction": 0.5}


def test_random_bits_of_a_large_file_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    write_arrays(path, "me", outcomes=np.linspace(0, 1, 2000), state=np.zeros((3, 1000), "f4"))
    at = path.read_bytes().index(b"v\0{'descr'") * 8  # the length of an array's header
    assert_noticed(path, lambda: read_arrays(path, "me"), flips=2000, cuts=range(0, 28_000, 97))
    assert_noticed(path, lambda: read_arrays(path, "me"), flips=range(at, at + 16), cuts=[])


def sealed(archive: bytes) -> bytes:
    """Return an archive of someone else's with a digest that is right."""
    body = archive[:-2] + struct.pack("<H", 64)
    return body + hashlib.sha256(body).hexdigest().encode()


def savez(**arrays: Any) -> bytes:
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


def lying() -> bytes:
    """Return an archive whose array has a header that promises a petabyte."""
    header = b"\x93NUMPY\x01\x00" + struct.pack("<H", 118)
    header += b"{'descr': '<f8', 'fortran_order': False, 'shape': (137438953472000,), }".ljust(117)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("x.npy", header + b"\n" + bytes(16))
    return content.getvalue()


def bomb() -> bytes:
    content = io.BytesIO()
    np.savez_compressed(content, owner=np.array(b"me"), x=np.zeros(10**6))
    return content.getvalue()


FOREIGN: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "text": lambda: b"years of work",
    "json": lambda: b'{"format": 2, "kind": "training"}',
    "pickle": lambda: pickle.dumps({"a": 1}),
    "an archive without digest": lambda: savez(owner=np.array(b"me"), x=np.zeros(2)),
    "sealed: no archive": lambda: sealed(b"years of work"),
    "sealed: no owner": lambda: sealed(savez(x=np.zeros(2))),
    "sealed: an owner that is no text": lambda: sealed(savez(owner=np.zeros(2))),
    "sealed: objects": lambda: sealed(savez(owner=np.array(["me"], dtype=object))),
    "sealed: compressed": lambda: sealed(bomb()),
    "sealed: a lying header": lambda: sealed(lying()),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_files_are_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(FOREIGN[name]())
    with pytest.raises(CorruptFile, match=r"a\.npz"):
        read_arrays(path, "me")
    with pytest.raises(CorruptFile, match=r"a\.npz"):
        read_manifest(path, "training")


@pytest.mark.parametrize("content", [b"[1]", b"[" * 5000, b'{"a": NaN}', b"1" * 5000, b"null"])
def test_foreign_manifests_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.json").write_bytes(content)
    with pytest.raises(CorruptFile, match=r"m\.json"):
        read_manifest(tmp_path / "m.json", "training")


def test_other_formats_and_kinds_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text('{"format": 1, "n": 3}')
    with pytest.raises(InvalidInput, match="format 2 in .* Got a folder of format 1"):
        read_manifest(path, "training")
    write_manifest(path, "training", {"format": 3})
    with pytest.raises(InvalidInput, match="Got a training of format 3"):
        read_manifest(path, "training")
    write_manifest(path, "training", {})
    with pytest.raises(InvalidInput, match="Expected an ensemble .* Got a training .* another dir"):
        read_manifest(path, "ensemble")


def test_a_file_of_another_owner_is_refused(tmp_path: Path) -> None:
    write_arrays(tmp_path / "a.npz", "step 3 of mine", x=np.zeros(2))
    with pytest.raises(CorruptFile, match="belong to step 4 of mine. Got a file of step 3 of mine"):
        read_arrays(tmp_path / "a.npz", "step 4 of mine")


def test_no_file_and_a_folder_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_arrays(tmp_path / "a.npz", "me")
    with pytest.raises(FileNotFoundError):
        read_manifest(tmp_path / "m.json", "training")
    with pytest.raises(CorruptFile, match="can be read in .* Got: Is a directory"):
        read_arrays(tmp_path, "me")
    with pytest.raises(NotWritten, match="Is a directory"):
        write_bytes(tmp_path, b"new")
    with pytest.raises(NotWritten, match="No such file"):
        write_bytes(tmp_path / "absent" / "a", b"new")
    (tmp_path / "file").touch()
    with pytest.raises(NotWritten, match="File exists|Not a directory"):
        make_folder(tmp_path / "file")
    assert names(tmp_path) == ["file"]


def test_what_cannot_be_a_file_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    for path in (tmp_path / "there", tmp_path / "new"):
        assert file_to_write(path) == path
    for path, said in (
        (tmp_path, "the folder"),
        (Path(os.devnull), "the device"),
        (tmp_path / "absent" / "new", "folder that exists"),
    ):
        with pytest.raises(InvalidInput, match=said):
            file_to_write(path)


# Failures while writing


@pytest.mark.parametrize("call", ["open", "write", "fsync", "replace", "close"])
@pytest.mark.parametrize(
    "failure", [OSError(errno.ENOSPC, "disk full"), OSError(errno.EIO, "bad"), KeyboardInterrupt()]
)
def test_a_failure_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, failure: BaseException
) -> None:
    path = tmp_path / "a"
    write_bytes(path, b"old")
    real = getattr(os, call)

    def failing(*arguments: Any, **options: Any) -> Any:
        if call == "write":
            real(arguments[0], arguments[1][:1])
        elif call == "close":
            real(*arguments)
        monkeypatch.undo()
        raise failure

    monkeypatch.setattr(os, call, failing)
    expected = KeyboardInterrupt if isinstance(failure, KeyboardInterrupt) else NotWritten
    with pytest.raises(expected) as caught:
        write_bytes(path, b"new")
    # The file is closed after it got its name.
    assert path.read_bytes() == (b"new" if call == "close" else b"old")
    assert names(tmp_path) == ["a"]
    if isinstance(failure, OSError):
        assert isinstance(caught.value, OSError)
        assert caught.value.errno == failure.errno
        assert f"Got: {failure.strerror}" in str(caught.value)


def test_a_file_and_then_its_name_are_flushed_to_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[tuple[bool, list[str]]] = []
    real = os.fsync

    def seen(descriptor: int) -> None:
        flushed.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), names(tmp_path)))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", seen)
    write_bytes(tmp_path / "a", b"new")
    (content, before), (folder, after) = flushed
    assert (content, folder) == (False, True)
    assert "a" not in before
    assert after == ["a"]


def test_a_disk_that_takes_few_bytes_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda file, content: real(file, content[:3]))
    write_bytes(tmp_path / "a", b"0123456789")
    assert (tmp_path / "a").read_bytes() == b"0123456789"


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(code, "no locks here")

    monkeypatch.setattr("whence.storage.locks.fcntl.flock", unsupported)
    leftover = tmp_path / ".whence-0011223344556677.tmp"
    leftover.write_bytes(b"half")
    with claim(tmp_path), claim(tmp_path):
        write_bytes(tmp_path / "a", b"new")
    clear_leftovers(tmp_path)
    assert names(tmp_path) == [leftover.name, "a"], "whose it is cannot be known"
    monkeypatch.setattr("whence.storage.locks.fcntl", None)
    with claim(tmp_path):
        write_bytes(tmp_path / "a", b"newer")
    clear_leftovers(tmp_path)
    assert names(tmp_path) == [leftover.name, "a"]
    assert (tmp_path / "a").read_bytes() == b"newer"


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").touch()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_bytes(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_a_name_of_the_greatest_length(tmp_path: Path) -> None:
    path = tmp_path / ("a" * 255)
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"


# Two writers, and the dead ones


def test_a_lock_tells_who_holds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").touch()
    with (tmp_path / "a").open() as one, (tmp_path / "a").open() as other:
        assert [lock(one.fileno()), lock(other.fileno())] == [True, False]
        unlock(one.fileno())
        assert lock(other.fileno()) is True
        monkeypatch.setattr("whence.storage.locks.fcntl", None)
        assert lock(one.fileno()) is None


def test_a_folder_is_claimed_once(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    refused = pytest.raises(InvalidInput, match="no other process to write in .*run. Got one")
    with claim(folder), claim(tmp_path / "other"), refused, claim(folder):
        pass
    with pytest.raises(KeyError), claim(folder):
        raise KeyError
    with claim(folder):
        assert names(folder) == []


@pytest.mark.parametrize("failure", [None, KeyError])
def test_what_killed_workers_leave_is_cleared_when_a_claim_ends(
    tmp_path: Path, failure: type[Exception] | None
) -> None:
    (tmp_path / "members").mkdir()
    with nullcontext() if failure is None else pytest.raises(failure), claim(tmp_path):
        for name in (".whence-0123.tmp", "members/.whence-4567.tmp", "members/mine.tmp"):
            (tmp_path / name).write_bytes(b"half")
        if failure is not None:
            raise failure
    assert names(tmp_path) == ["members"]
    assert names(tmp_path / "members") == ["mine.tmp"]


# Each child is killed just before or just after a step of writing over an earlier file. Then the
# process itself stops in the middle of writing.
WRITER = """
import os, signal, sys, time
from pathlib import Path
import numpy as np
from whence import storage

killed, living = map(Path, sys.argv[1:])
for name in ("open", "write", "fsync", "replace", "close"):
    for when in ("before", "after"):
        path = killed / f"{name}-{when}.npz"
        storage.write_arrays(path, "me", x=np.zeros(1000))
        if os.fork() == 0:
            real = getattr(os, name)
            def killing(*arguments):
                if when == "after":
                    real(*arguments)
                elif name == "write":
                    real(arguments[0], arguments[1][:100])
                os.kill(os.getpid(), signal.SIGKILL)
            setattr(os, name, killing)
            storage.write_arrays(path, "me", x=np.ones(1000))
            os._exit(0)
        assert os.WTERMSIG(os.wait()[1]) == signal.SIGKILL

def stop(*_):
    print("ready", flush=True)
    time.sleep(100)

os.replace = stop
with storage.claim(living):
    storage.write_bytes(living / "a", b"half")
"""


@dataclass(frozen=True)
class Writer:
    """A process in the middle of writing, after its children were killed in theirs."""

    process: subprocess.Popen[bytes]
    killed: Path
    living: Path


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Writer]:
    folders = tmp_path_factory.mktemp("killed"), tmp_path_factory.mktemp("living")
    (folders[1] / "mine.tmp").touch()
    command = [sys.executable, "-c", WRITER, *map(str, folders)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield Writer(process, *folders)
        process.kill()


def test_a_living_writer_is_left_alone_and_a_dead_one_is_cleared(writer: Writer) -> None:
    folder = writer.living
    (temporary,) = (name for name in names(folder) if name.startswith(".whence-"))
    clear_leftovers(folder)
    with pytest.raises(InvalidInput, match="Got one that does"), claim(folder):
        pass
    assert names(folder) == [temporary, "mine.tmp"]
    writer.process.send_signal(signal.SIGKILL)
    writer.process.wait()
    with claim(folder):
        assert names(folder) == ["mine.tmp"]


def test_a_writer_whose_temporary_file_is_taken_for_a_leftover_writes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, opened = os.open, []

    def opening(path: Any, flags: int, *mode: int) -> int:
        file = real(path, flags, *mode)
        if flags & os.O_CREAT and len(opened) < 2:
            opened.append(path)
            os.unlink(path) if len(opened) == 1 else clear_leftovers(tmp_path)
        return file

    monkeypatch.setattr(os, "open", opening)
    write_bytes(tmp_path / "a", b"new")
    assert len(opened) == 2
    assert names(tmp_path) == ["a"]


def test_a_kill_at_any_step_leaves_the_old_file_or_the_new_one(writer: Writer) -> None:
    folder = writer.killed
    found = {
        path.stem: int(read_arrays(path, "me")["x"].sum()) for path in folder.glob("[!.]*.npz")
    }
    new = {"replace-after", "close-before", "close-after"}
    assert found == {
        f"{name}-{when}": 1000 * (f"{name}-{when}" in new)
        for name in ("open", "write", "fsync", "replace", "close")
        for when in ("before", "after")
    }
    deadline = time.monotonic() + 10
    while any(name.startswith(".whence") for name in names(folder)):
        clear_leftovers(folder)
        assert time.monotonic() < deadline
