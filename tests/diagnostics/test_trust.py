"""Rules of the trust report, beside other implementations and by their order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats
from sklearn.metrics import homogeneity_score

from betavi.diagnostics import Cause, DenoisingReport
from betavi.diagnostics.trust import (
    ANSWERS,
    PURPOSES,
    Confounding,
    Finding,
    Values,
    can_be_flagged,
    determined_by,
    is_falling,
    judge_cells,
    judge_conditions,
    judge_coverage,
    judge_effects,
    judge_genes,
    judge_latent,
    judge_scores,
    judge_separation,
    judge_states,
    judge_training,
    judge_values,
    null_score,
    outlying_cells,
    overall_of,
)
from tests.pl.test_pl import report

ALL = dict.fromkeys(("map", "genes"), True)


def levels(findings):
    return [finding.level for finding in findings]


@pytest.mark.parametrize(
    ("findings", "measured", "answer", "genes"),
    [
        ([], ALL, "usable", "usable"),
        ([Finding("note", "data", "")], ALL, "usable", "usable"),
        ([Finding("care", "data", "", purposes=("genes",))], ALL, "usable with care", "usable with care"),
        ([Finding("stop", "data", "", purposes=("map",))], ALL, "usable with care", "usable"),
        ([Finding("stop", "data", "")], ALL, "not usable", "not usable"),
        ([], {"map": True}, "usable", "not measured"),
        # ruled out although no section has tested it
        ([Finding("stop", "data", "")], {}, "not usable", "not usable"),
        ([], {}, "usable with care", "not measured"),
        # a use that was not tested is not ruled out
        ([Finding("stop", "a", "", purposes=("map",))], {}, "usable with care", "not measured"),
        # the worst counts
        ([Finding("stop", "a", ""), Finding("care", "b", "")], ALL, "not usable", "not usable"),
    ],
)  # fmt: skip
def test_the_verdict_follows_from_the_findings(findings, measured, answer, genes):
    found = overall_of(findings, ["map", "genes"], measured)
    assert (found.answer, found.by_purpose["genes"]) == (answer, genes)
    assert found.answer in ANSWERS
    assert "denoised expression" in found.sentence


def test_an_unknown_level_is_refused():
    with pytest.raises(ValueError, match="level must be one of 'note', 'care', 'stop', not 'bad'"):
        overall_of([Finding("bad", "data", "")], PURPOSES, {})


@pytest.mark.parametrize("seed", range(5))
def test_the_share_that_a_batch_explains_is_the_homogeneity(seed):
    rng = np.random.default_rng(seed)
    batch, groups = rng.integers(0, 4, 300), rng.integers(0, 3, 300)
    groups[:200] = batch[:200] // 2
    found = determined_by(batch, groups)
    assert found.share == pytest.approx(homogeneity_score(groups, batch))
    assert not found.is_renamed


def test_confounded_and_renamed_groups():
    batch = np.repeat(["a", "b", "c", "d"], 25)
    assert determined_by(batch, np.repeat(["x", "y"], 50)) == (pytest.approx(1), False)
    assert determined_by(batch, np.char.upper(batch)) == (pytest.approx(1), True)
    assert determined_by(batch, np.tile(["x", "y"], 50)).share < 0.01
    assert determined_by(batch, np.repeat("x", 100)).share == 0
    found = {
        "stim": Confounding(1.0, True),
        "sex": Confounding(0.7, False),
        "age": Confounding(0, False),
    }
    stopped, partly = judge_conditions(found, "donor")
    assert (stopped.level, partly.level) == ("stop", "care")
    assert stopped.purposes == ("conditions",)
    assert "obs['stim'] is confounded with the batch, obs['donor']" in stopped.text
    assert "another name of the batch" in stopped.remedy
    assert "train without batch_key, or with another column" in stopped.remedy


def test_values_that_are_not_counts():
    assert judge_values({"X": Values(0.0, True, "zinb")}) == []
    assert levels(judge_values({"X": Values(0.4, True, "zinb")})) == ["stop"]
    assert levels(judge_values({"rna": Values(0.4, False, "normal")})) == ["note"]


def test_the_null_score_is_a_sum_of_negative_binomials():
    rng = np.random.default_rng(0)
    counts = rng.negative_binomial(2, 0.3, size=(400, 6))
    batch = np.repeat([0, 1, 0, 1], 100)
    train, test = counts[:200], counts[200:]
    found = null_score(sparse.csr_array(train), sparse.csr_array(test), (batch[:200], batch[200:]))
    # the same model, written out cell by cell
    everyone = (train.sum(axis=0) + 1 / 6) / (train.sum() + 1)
    shares = []
    for code in (0, 1):
        added = train[batch[:200] == code].sum(axis=0) + 6 * everyone
        shares.append(added / added.sum())
    mean = np.stack([x.sum() * shares[b] for x, b in zip(train, batch[:200], strict=True)])
    size = (mean**2).sum(axis=0) / ((train - mean) ** 2 - mean).sum(axis=0)
    mean = np.stack([x.sum() * shares[b] for x, b in zip(test, batch[200:], strict=True)])
    expected = stats.nbinom.logpmf(test, size, size / (size + mean)).sum(axis=1).mean()
    assert found == pytest.approx(expected, rel=1e-9)


def test_the_null_score_knows_batches_and_genes_without_counts():
    rng = np.random.default_rng(1)
    batch = np.tile([0, 1], 100)
    rate = np.where(batch[:, None] == 0, [1.0, 8.0, 4.0], [8.0, 1.0, 4.0])
    counts = sparse.csr_array(np.column_stack([rng.poisson(rate), np.zeros(200, dtype=int)]))
    one = np.zeros(100, dtype=int)
    with_batches = null_score(counts[:100], counts[100:], (batch[:100], batch[100:]))
    assert with_batches > null_score(counts[:100], counts[100:], (one, one)) + 1


def test_a_model_is_compared_with_both_baselines():
    assert judge_scores(-90, -100, -95, "X") == []
    assert "PCA explains" in judge_scores(-97, -100, -95, "rna")[0].text
    assert levels(judge_scores(-97, -100, -95, "rna")) == ["care"]
    # hardly worse than PCA
    (found,) = judge_scores(-95.1, -100, -95, "rna")
    assert (found.level, "as well as the model" in found.text) == ("note", True)
    # one of several modalities does not make the map
    for score in (-97, -101):
        assert judge_scores(score, -100, -95, "rna", makes_map=False)[0].purposes == ("genes",)
        assert "map" in judge_scores(score, -100, -95, "X")[0].purposes
    # a difference within two standard errors does not count
    assert levels(judge_scores(-97, -100, -95, "X", error=0.9)) == ["care"]
    assert levels(judge_scores(-97, -100, -95, "X", error=1.1)) == ["note"]
    for score in (-97, -101):
        falling = judge_scores(score, -100, -95, "X", is_falling=True)[0].remedy
        flat = judge_scores(score, -100, -95, "X")[0].remedy
        assert falling.startswith("Train for more epochs")
        assert "more epochs would change little" in flat
    assert "the mean of each gene" in judge_scores(-101, -100, -99, "X")[0].text
    assert "another β" in judge_scores(-101, -100, -99, "X", is_beta_one=False)[0].text
    # without PCA
    assert judge_scores(-90, -100, np.nan, "X") == []


FLAT = 100 + 50 * np.exp(-np.arange(30) / 3.0)


@pytest.mark.parametrize(
    ("loss", "held_out", "betas", "words"),
    [
        (FLAT, None, (1, 1), None),
        (FLAT, FLAT + 5, (1, 1), None),
        (FLAT, None, (np.nan, 1), None),
        (FLAT, None, (0.2, 1), "Training ended at β = 0.2"),
        (100 - np.arange(30.0), None, (1, 1), "still falling"),
        (FLAT[:2], None, (1, 1), "2 epoch"),
        (np.r_[FLAT, np.nan], None, (1, 1), "NaN"),
        (FLAT, np.r_[150.0, 110, 100, 115, 130], (1, 1), "rose again"),
    ],
)
def test_training_is_judged_by_its_curves(loss, held_out, betas, words):
    found = judge_training(loss, held_out, *betas)
    is_short = bool(words) and any(part in words for part in ("falling", "epoch"))
    assert not np.isfinite(loss).all() or is_falling(loss) == is_short
    assert len(found) == (words is not None)
    if words:
        assert words in found[0].text
        assert found[0].remedy


@pytest.mark.parametrize(
    ("status", "level"),
    [
        (["used", "used"], []),
        (["used", "inactive"], ["note"]),
        # the information of the first dimension is 1 nat, of the last 0.001
        (["used", "noise"], ["note"]),
        (["noise", "used"], ["care"]),
        (["used", "unclear"], ["note"]),
        (["unclear", "unclear"], ["care"]),
        (["noise", "inactive"], ["stop"]),
        (["depth", "depth"], ["stop"]),
    ],
)
def test_a_latent_space_is_judged_by_its_dimensions(status, level):
    assert levels(judge_latent(report(*status))) == level


def test_counts_without_shared_signal_stop_a_model_that_uses_dimensions_by_chance():
    (found,) = judge_latent(report("used", "used", signals=()))
    assert found.level == "stop"
    assert "no shared signal" in found.text


def test_few_counts_are_named_with_their_remedy():
    few = Cause("too_few_counts", "", "Register more genes.")
    (found,) = judge_latent(replace(report("noise", signals=()), causes=[few]))
    assert found.remedy.startswith("Register more genes. Check that the matrix")
    assert "100 counts per cell" in found.text


def test_a_batch_that_the_latent_space_still_tells_apart_is_a_note():
    columns = {"score": [0.7, 0.3], "guess": 0.25, "measure": "balanced accuracy"}
    table = pd.DataFrame(columns, ["donor", "lane"])
    (found,) = judge_latent(replace(report("used"), predicted=table))
    assert found.level == "note"
    assert "predicts 'donor': balanced accuracy 0.70, and 0.25 by guessing" in found.text


def denoised(z, methods=None):
    genes = pd.DataFrame({"z": z, "trusted": np.asarray(z) > 2})
    if methods is None:
        methods = pd.DataFrame({"explained": [0.2], "behind": [0.0], "behind_se": [0.0]}, ["mean"])
    return DenoisingReport(methods, genes, genes, "mean", ["mean"], 0.1)


def test_denoising_is_judged_by_its_genes_and_by_baselines():
    assert judge_genes(denoised([3, 3, 0, 0])) == []
    assert levels(judge_genes(denoised([0.0] * 99 + [3]))) == ["stop"]
    assert levels(judge_genes(denoised([3, 3, -3, -3]))) == ["care"]
    table = pd.DataFrame({"explained": [0.3, 0.2], "behind": [0, 0.1]}, ["svd", "mean"])
    assert "svd" in judge_genes(denoised([3, 3], table.assign(behind_se=0.01)))[0].text
    assert judge_genes(denoised([3, 3], table.assign(behind_se=0.2))) == []


def test_coverage_is_compared_with_its_nominal_value_and_error():
    assert judge_coverage({"a": (0.88, 0.01), "b": (0.8, 0.1)}, "calibration") == []
    found = judge_coverage({"a": (0.8, 0.01), "b": (0.99, 0.01)}, "calibration")
    assert levels(found) == ["care", "note"]


def test_outlying_cells_hold_their_false_discovery_rate():
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(200):
        p_values = np.r_[rng.random(400), rng.random(40) * 1e-4]
        found = outlying_cells(p_values)
        assert found[400:].all()
        shares.append(found[:400].sum() / found.sum())
    assert np.mean(shares) < 0.1
    # by hand: the second of three ranks is at most 2 / 3 of 0.1
    assert outlying_cells(np.array([0.9, 0.06, 0.03])).tolist() == [False, True, True]
    assert not outlying_cells(np.array([np.nan])).any()


@pytest.mark.parametrize(("n_cells", "n_held_out"), [(5, 99), (20, 199), (30, 99), (400, 311)])
def test_a_cell_can_be_flagged_if_the_smallest_p_value_alone_is_significant(n_cells, n_held_out):
    p_values = np.r_[1 / (n_held_out + 1), np.ones(n_cells - 1)]
    assert outlying_cells(p_values).any() == can_be_flagged(n_cells, n_held_out)


def test_ordinary_cells_raise_no_finding():
    rng = np.random.default_rng(0)
    groups = {"a": np.arange(500) < 250, "b": np.arange(500) >= 250}
    found = [judge_cells(rng.random(500), groups) for _ in range(300)]
    assert sum(map(len, found)) <= 2
    p_values = np.r_[rng.random(450), np.full(50, 0.01)]
    for are_new, level in ((True, "care"), (False, "note")):
        found = judge_cells(p_values, groups, are_new)[-1]
        assert "Cells of b" in found.text
        assert found.level == level


def test_effects_are_compared_with_all_baselines_but_not_with_ceilings():
    table = pd.DataFrame({"l2": [1.0, 3.0, 1.5, 0.2, 0.3]},
                         ["EffectVI", "no change", "additive", "split half", "better single"])  # fmt: skip
    assert judge_effects(table, "combination") == []
    table.loc["additive", "l2"] = 0.5
    assert "'additive'" in judge_effects(table, "combination")[0].text
    # hardly worse than a baseline
    table.loc["EffectVI", "l2"] = 0.52
    (close,) = judge_effects(table, "combination")
    assert (close.level, "no better than the baseline 'additive'" in close.text) == ("care", True)
    table.loc["EffectVI", "l2"] = 4
    assert levels(judge_effects(table, "dose")) == ["stop"]
    # effects of measured perturbations are not concerned
    assert close.purposes == judge_effects(table, "dose")[0].purposes == ("predictions",)


def test_effects_that_cannot_be_separated():
    assert judge_separation({}, 3) == []
    (found,) = judge_separation({"A": ["batch"]}, 3)
    assert (found.level, found.purposes) == ("care", ("effects", "predictions"))
    assert levels(judge_separation({name: ["batch"] for name in "ABC"}, 3)) == ["stop"]


def test_states_that_depend_on_the_perturbation():
    table = pd.DataFrame({"nats": [0.0, 0.3], "entropy": 1.0, "depends": [False, True]}, ["x", "y"])
    (found,) = judge_states(table)
    assert "states of y depend" in found.text
