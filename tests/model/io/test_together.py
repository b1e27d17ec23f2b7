"""Several files are all old or all new, whatever stops the process that writes them."""

from __future__ import annotations

import os

import pytest

from betavi.model.io import replace, together
from betavi.model.io.together import MARKER, current, write_together
from tests.killing import killed_at, number_of_moments

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
    ],
)
def test_a_marker_names_files_of_its_folder_only(tmp_path, text):
    write(tmp_path, "old")
    (tmp_path / MARKER).write_text(text)
    with pytest.raises(ValueError, match=r"model\.saving is damaged.*Remove this file"):
        current(tmp_path, "model.json", "")
    with pytest.raises(ValueError, match="is damaged"):
        write(tmp_path, "new")


def test_nothing_is_left_reserved(tmp_path):
    before = set(replace._reserved)
    write(tmp_path, "one")
    assert set(replace._reserved) == before
