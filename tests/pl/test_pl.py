from __future__ import annotations

import matplotlib as mpl
import pandas as pd
import pytest

from betavi import pl

mpl.use("Agg")


@pytest.fixture
def curve():
    table = pd.DataFrame({"beta": [0.5, 1, 2], "rate": [9, 5, 2], "distortion": [50, 51, 60]})
    return table.assign(elbo=-table["rate"] - table["distortion"])


def test_points_are_where_the_curve_is_and_named_by_beta(curve):
    ax = pl.rate_distortion(curve)
    assert ax.collections[0].get_offsets().tolist() == [[9, 50], [5, 51], [2, 60]]
    assert [text.get_text() for text in ax.texts] == ["0.5", "1", "2"]


def test_other_columns_and_axes(curve):
    _, ax = mpl.pyplot.subplots()
    assert pl.rate_distortion(curve, y="elbo", x="beta", ax=ax) is ax
    assert ax.get_xscale() == "log"
    assert ax.get_ylabel() == "ELBO at β = 1, nats per cell"
    # where an axis says which β it is, colour need not be explained
    assert (len(ax.figure.axes), len(pl.rate_distortion(curve).figure.axes)) == (1, 2)


def test_reference_points_are_named_by_their_components(curve):
    reference = pd.DataFrame({"n_components": [2, 7], "rate": [3, 6], "distortion": [70, 65]})
    ax = pl.rate_distortion(curve, reference=reference)
    assert {"2", "7"} <= {text.get_text() for text in ax.texts}


def test_a_missing_column_is_named(curve):
    with pytest.raises(KeyError, match=r"no column 'agreement_rare'. It has beta, rate"):
        pl.rate_distortion(curve, y="agreement_rare")
