from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import r2_score, root_mean_squared_error

from betavi.diagnostics import score_translation


def test_translations_are_scored_as_scipy_and_sklearn_do():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(5000, 3))
    predicted = truth + 0.5 * rng.normal(size=truth.shape)
    predicted[:, 2] = 1.0
    table = score_translation(predicted, truth, predicted - 0.5, predicted + 1.5)
    for j in range(2):
        expected = stats.pearsonr(predicted[:, j], truth[:, j]).statistic
        assert table["pearson"][j] == pytest.approx(expected)
    assert np.isnan(table["pearson"][2])
    for j in range(3):
        assert table["rmse"][j] == pytest.approx(
            root_mean_squared_error(truth[:, j], predicted[:, j])
        )
        assert table["r2"][j] == pytest.approx(r2_score(truth[:, j], predicted[:, j]))
    # of a normal error of 0.5, from one standard deviation below to three above
    assert table["coverage"][0] == pytest.approx(stats.norm.cdf(3) - stats.norm.cdf(-1), abs=0.02)
    assert table["width"].tolist() == pytest.approx([2, 2, 2])
