"""Processes that are killed with SIGKILL at a chosen moment of writing a file."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from pathlib import Path

import anndata
import mudata

from betavi.model.io import lock, replace, together, writer

EVENTS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate"}
CODE = {module.__file__ for module in (lock, replace, together, writer)}
FOLDERS = tuple(str(Path(package.__file__).parent) for package in (anndata, mudata))


def ended(action):
    """Run an action in a process of its own; return its exit code."""
    process = multiprocessing.get_context("fork").Process(target=action)
    process.start()
    process.join(300)
    return process.exitcode


def killed_at(moment, folder, action):
    """Kill a process at a moment of an action; return whether it came to that moment."""
    return _watched(moment, folder, action)[0]


def number_of_moments(folder, action):
    """Return at how many moments an action can be killed.

    A moment is a call or a return in the code of the writer, a call of a writing function of
    anndata's or mudata's, or a file below the folder that is opened, renamed or removed.
    """
    return _watched(-1, folder, action)[1]


def _watched(moment, folder, action):
    passed = multiprocessing.Value("l", 0)

    def passes():
        passed.value += 1
        if passed.value == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(event, args):
        if event in EVENTS and any(str(folder) in str(arg) for arg in args[:2]):
            passes()

    def profile(frame, event, _):
        name = frame.f_code.co_filename
        is_theirs = event == "call" and name.startswith(FOLDERS) and "io" in name
        if name in CODE or is_theirs:
            passes()

    def child():
        sys.addaudithook(audit)
        sys.setprofile(profile)
        action()
        sys.setprofile(None)

    code = ended(child)
    assert code in (0, -signal.SIGKILL), code
    return code != 0, passed.value
