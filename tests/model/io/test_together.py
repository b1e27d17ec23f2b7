"""Several files are all old or all new, whatever stops the process that writes them."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
from threading import Event, Thread

import pytest

from betavi.model.io import lock, replace, together
from betavi.model.io.lock import locked
from betavi.model.io.together import MARKER, current, write_together
from tests.killing import ended, killed_at, number_of_moments

NAMES = ("model.json", "model.safetensors", "adata.h5ad")


def write(folder, label, prefix="", names=NAMES):
    writers = {name: lambda path: path.write_text(label) for name in names}
    write_together(folder, prefix, writers)


def labels(folder, prefix=""):
    """Return the set of labels that a reader finds."""
    paths = [current(folder, name, prefix) for name in NAMES]
    return {path.read_text() for path in paths if path.exists()}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(params=["", "first_"])
def prefix(request):
    return request.param


def test_files_are_replaced_together(tmp_path, prefix):
    (tmp_path / "notes.txt").write_text("mine")
    write(tmp_path, "other", "second_")
    for label in ("old", "new"):
        write(tmp_path, label, prefix)
        assert labels(tmp_path, prefix) == {label}
    files = [start + name for start in (prefix, "second_") for name in NAMES]
    assert names(tmp_path) == sorted([*files, "notes.txt"])
    assert labels(tmp_path, "second_") == {"other"}


def test_a_writer_that_fails_leaves_the_old_files(tmp_path):
    write(tmp_path, "old")
    for failing in range(len(NAMES)):

        def fail(path):
            path.write_text("half")
            raise KeyboardInterrupt

        writers = {name: lambda path: path.write_text("new") for name in NAMES}
        writers[NAMES[failing]] = fail
        with pytest.raises(KeyboardInterrupt):
            write_together(tmp_path, "", writers)
        assert labels(tmp_path) == {"old"}
        assert names(tmp_path) == sorted(NAMES)


STEPS = [("os.fsync", number) for number in range(7)] + [("replace", number) for number in range(4)]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize(("step", "number"), STEPS)
def test_an_error_at_any_step(tmp_path, monkeypatch, step, number, error):
    """Calls to the disk fail from a moment on, as where it is full or gone."""
    write(tmp_path, "old")
    owner, name = (os, "fsync") if step == "os.fsync" else (together, "take_place")
    working, calls = getattr(owner, name), []

    def failing(*args):
        calls.append(args)
        if len(calls) > number:
            raise error
        return working(*args)

    monkeypatch.setattr(owner, name, failing)
    with pytest.raises(error):
        write(tmp_path, "new")
    assert labels(tmp_path) in ({"old"}, {"new"})
    is_committed = (tmp_path / MARKER).exists()
    assert labels(tmp_path) == {"new" if is_committed else "old"}
    monkeypatch.undo()
    write(tmp_path, "next")
    assert labels(tmp_path) == {"next"}
    assert names(tmp_path) == sorted(NAMES)


def check_killed(folder, prefix, moments):
    for moment in moments:
        write(folder, "old", prefix)
        assert killed_at(moment, folder, lambda: write(folder, "new", prefix))
        found = labels(folder, prefix)
        assert found in ({"old"}, {"new"})
        # another name of files, so that the interrupted save must be finished first
        write(folder, "next", prefix, NAMES[:1])
        expected = {"next"} | found
        assert labels(folder, prefix) == expected
        assert names(folder) == sorted(prefix + name for name in NAMES)


def test_a_killed_process_leaves_old_or_new_files(tmp_path, prefix):
    write(tmp_path, "old", prefix)
    last = number_of_moments(tmp_path, lambda: write(tmp_path, "new", prefix))
    check_killed(tmp_path, prefix, range(20 * bool(prefix) + 1, last, 40))


@pytest.mark.slow
def test_a_process_is_killed_at_every_second_moment(tmp_path):
    write(tmp_path, "old")
    last = number_of_moments(tmp_path, lambda: write(tmp_path, "new"))
    check_killed(tmp_path, "", range(1, last, 2))


def test_a_killed_first_save_leaves_no_files_or_all(tmp_path):
    last = number_of_moments(tmp_path, lambda: write(tmp_path, "new"))
    seen = set()
    for moment in range(1, last, 40):
        folder = tmp_path / str(moment)
        folder.mkdir()
        killed_at(moment, folder, lambda folder=folder: write(folder, "new"))
        found = [current(folder, name, "").exists() for name in NAMES]
        assert all(found) or not any(found)
        seen.add(all(found))
    assert seen == {True, False}


@pytest.mark.parametrize(
    "text",
    [
        '{"model.json": "../secret"}',
        '{"model.json": ".."}',
        '{"../x": "y"}',
        "[1]",
        '{"a": 1}',
        "{",
        "[" * 100_000,
        '{"model.json": ""}',
        '{"model.json": {}}',
        '{"model.json": "model.json"}',
        '{"README.md": "important.txt"}',
        '{"README.md": ".README.md.betavi-saving-1-a-b.md"}',
        '{"model.json": ".model.pt.betavi-saving-1-a-b.pt"}',
        '{"model.json": ".model.json.betavi-saving-/../../secret"}',
        '{"second_model.json": ".second_model.json.betavi-saving-1-a-b.json"}',
        '{"model.saving": ".model.saving.betavi-saving-1-a-b.saving"}',
    ],
)
def test_a_marker_names_files_of_its_folder_only(tmp_path, text):
    write(tmp_path, "old")
    for name in ("README.md", "important.txt", ".README.md.betavi-saving-1-a-b.md"):
        (tmp_path / name).write_text(name)
    (tmp_path / MARKER).write_text(text)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=r"model\.saving is damaged.*Remove this file"):
        current(tmp_path, "model.json", "")
    with pytest.raises(ValueError, match="is damaged"):
        write(tmp_path, "new")
    assert contents(tmp_path) == before


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_marker_lists_no_links(tmp_path):
    """A link would give the file outside the rights of a file of the folder."""
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "secret").chmod(0o600)
    folder = tmp_path / "folder"
    folder.mkdir()
    write(folder, "old")
    (folder / "model.json").chmod(0o666)
    new = folder / ".model.json.betavi-saving-1-a-b.json"
    new.symlink_to(tmp_path / "secret")
    (folder / MARKER).write_text(json.dumps({"model.json": new.name}))
    with pytest.raises(ValueError, match=r"model\.saving is damaged"):
        write(folder, "new")
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600


def test_a_listed_file_is_safe_from_other_writers(tmp_path):
    """A writer of one file removes what killed writers left, and not what a marker lists."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    name = f".adata.h5ad.betavi-saving-{gone.pid}-aa-{replace.HOST}.h5ad"
    (tmp_path / name).write_text("new")
    (tmp_path / MARKER).write_text(json.dumps({"adata.h5ad": name}))
    replace.tidy(tmp_path / "adata.h5ad")
    assert labels(tmp_path) == {"new"}
    (tmp_path / MARKER).unlink()
    write(tmp_path, "next")
    assert names(tmp_path) == sorted(NAMES)


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_that_cannot_sync_folders(tmp_path, monkeypatch, code):
    working = os.fsync

    def fsync(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(code, "not supported")
        working(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    write(tmp_path, "new")
    assert labels(tmp_path) == {"new"}
    monkeypatch.setattr(os, "fsync", lambda _: fail(OSError(code, "broken")))
    with pytest.raises(OSError, match="broken"):
        write(tmp_path, "next")
    assert labels(tmp_path) == {"new"}


def fail(error):
    raise error


# -- several savers -----------------------------------------------------------------------------


@pytest.fixture(params=["flock", "new file"])
def way(request, monkeypatch):
    """Two kinds of locks between saves: those of the system, and a file."""
    monkeypatch.setattr(lock, "HAS_FLOCK", request.param == "flock")


@pytest.mark.parametrize("step", range(4))
def test_a_save_in_the_middle_of_another(tmp_path, monkeypatch, way, step):
    """The second save has written its files, and commits as soon as it can."""
    write(tmp_path, "old")
    working, calls, is_written, may_commit = together.take_place, [], Event(), Event()

    def write_second(path):
        path.write_text("second")
        is_written.set()
        assert may_commit.wait(30)

    def write_first(path):
        path.write_text("first")
        assert is_written.wait(30)

    def take_place(new, target):
        if len(calls) == step:
            # the other save can go on until the lock, but not further
            may_commit.set()
            second.join(0.3)
            assert second.is_alive()
        calls.append(new.read_text())
        working(new, target)

    monkeypatch.setattr(together, "take_place", take_place)
    arguments = (tmp_path, "", dict.fromkeys(NAMES, write_second))
    second = Thread(target=write_together, args=arguments)
    second.start()
    write_together(tmp_path, "", dict.fromkeys(NAMES, write_first))
    second.join(30)
    assert labels(tmp_path) == {"second"}
    assert names(tmp_path) == sorted(NAMES)
    assert "second" not in calls[1:4]


def test_two_saves_that_wrote_their_files_at_once(tmp_path, way):
    write(tmp_path, "old")
    is_written, may_end = Event(), Event()

    def write_slowly(path):
        path.write_text("slow")
        is_written.set()
        assert may_end.wait(30)

    thread = Thread(target=lambda: write_together(tmp_path, "", dict.fromkeys(NAMES, write_slowly)))
    thread.start()
    assert is_written.wait(30)
    write(tmp_path, "fast")
    assert labels(tmp_path) == {"fast"}
    may_end.set()
    thread.join(30)
    assert labels(tmp_path) == {"slow"}
    assert names(tmp_path) == sorted(NAMES)


def test_a_save_finishes_one_that_was_killed_meanwhile(tmp_path):
    """The files of both are whole, and the marker of one does not count as that of the other."""
    write(tmp_path, "old")

    def killed():
        together._finish = lambda _: None
        together.write_together(tmp_path, "", {n: lambda p: p.write_text("dead") for n in NAMES})
        os.kill(os.getpid(), signal.SIGKILL)

    def write_new(path):
        assert ended(killed) == -signal.SIGKILL
        path.write_text("new")

    def write_half(path):
        write_new(path)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_together(tmp_path, "", {NAMES[0]: write_half})
    assert labels(tmp_path) == {"dead"}
    left = [path for path in names(tmp_path) if f"-{os.getpid()}-" in path]
    assert left == []
    write_together(tmp_path, "", {NAMES[0]: write_new})
    assert labels(tmp_path) == {"new", "dead"}
    assert names(tmp_path) == sorted(NAMES)


def test_processes_that_save_at_once_do_not_mix(tmp_path, way):
    write(tmp_path, "0")
    context = multiprocessing.get_context("fork")

    def often(label):
        for _ in range(20):
            write(tmp_path, label)
            # each whole folder is that of one process
            path = tmp_path / f".{MARKER}.lock"
            with locked(path):
                assert len(labels(tmp_path)) == 1

    processes = [context.Process(target=often, args=(label,)) for label in "123"]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    assert labels(tmp_path) in ({"1"}, {"2"}, {"3"})
    assert names(tmp_path) == sorted(NAMES)


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    path = tmp_path / "lock"

    def killed():
        with locked(path):
            os.kill(os.getpid(), signal.SIGKILL)

    assert ended(killed) == -signal.SIGKILL
    assert path.exists()
    with locked(path):
        pass
    assert not path.exists()


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    monkeypatch.setattr(lock.fcntl, "flock", lambda *_: fail(OSError(errno.ENOLCK, "no locks")))
    write(tmp_path, "new")
    assert labels(tmp_path) == {"new"}
    monkeypatch.setattr(lock.fcntl, "flock", lambda *_: fail(OSError(errno.EIO, "broken")))
    with pytest.raises(OSError, match="broken"):
        write(tmp_path, "next")


def test_a_file_in_place_of_a_lock_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "HAS_FLOCK", False)
    monkeypatch.setattr(lock, "WAIT", 0.1)
    (tmp_path / f".{MARKER}.lock").touch()
    with pytest.raises(TimeoutError, match=r"model\.saving\.lock exists.*remove this file"):
        write(tmp_path, "new")
    assert names(tmp_path) == [f".{MARKER}.lock"]


def test_nothing_is_left_reserved(tmp_path):
    before = set(replace._reserved)
    write(tmp_path, "one")
    assert set(replace._reserved) == before
