"""What a report says in a word."""

from __future__ import annotations

import pytest

from tests.pl.test_pl import report


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (["used", "used"], "healthy"),
        (["used", "unclear"], "healthy"),
        (["used", "inactive"], "partial"),
        (["used", "unclear", "noise"], "partial"),
        # nothing is known to be used
        (["unclear", "unclear"], "unclear"),
        (["unclear", "noise", "inactive"], "unclear"),
        (["noise", "inactive"], "collapsed"),
    ],
)
def test_the_verdict_follows_from_the_dimensions(status, verdict):
    assert report(*status).verdict == verdict
