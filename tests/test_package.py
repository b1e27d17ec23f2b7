"""The package as it is installed."""

from __future__ import annotations

from importlib.resources import files


def test_type_checkers_are_told_of_the_types():
    """PEP 561: without this file they take every name of the package for Any."""
    assert files("betavi").joinpath("py.typed").is_file()
