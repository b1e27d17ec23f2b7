"""Interactions of gene pairs in a CRISPR activation screen, called in one of two replicates.

Fitness of pairs of 112 genes, most with two guides (Norman et al. 2019). Singles are combinations with
half of the negative control guides. Pairs are called in replicate 1 at a false discovery rate of 0.1.
A call is confirmed if the excess in replicate 2 has the same sign. Each call is compared with as many
pairs of the largest absolute excess, and with the longest such list that is confirmed as often. Also
shown: the share of single guide pairs of replicate 2 with the sign of the call. Expected values are
judged on pairs of genes that had no part in the fit. Null: simulated screens, guides shuffled between
genes, and pairs with negative controls that had no part in the singles. ``python -m benchmarks.synergy``, two minutes.
"""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import stats

from benchmarks.peers import quietly, real_folder
from betavi.metrics import synergy
from betavi.metrics._expected import SCALES, fit_bend
from betavi.metrics._screens import Columns, read_screen
from betavi.metrics._units import PAIR, units_of
from betavi.metrics.synergy import with_expected

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LEVEL, N_FOLDS, REPEATS, N_SCREENS = 0.1, 5, 5, 50
DESIGNS = {"independent": None, "matched": "replicate"}
EVEN = partial(np.full_like, fill_value=0.05)
SIZES = (100, 300, 1000, 2000, 3000)
COLUMNS = Columns("perturbation", "fitness", "control", "|", "guides", None)
KEYS = {
    "value_key": "fitness", "separator": "|", "replicate_key": "guides", "scale": "log",
}  # fmt: skip


def by_value(values: np.ndarray) -> np.ndarray:
    return 0.01 + 0.1 * np.abs(values)


def read_fitness(folder: Path, replicate: int, seed: int | None = None) -> pd.DataFrame:
    """Read measurements of guide pairs of one replicate, one row each.

    Odd negative control guides are the control. Even ones are four more genes without effect. With a
    seed, guides are shuffled between genes.
    """
    name = f"replicate{replicate}_phenotypeMatrix_abbaAveraged.txt"
    matrix = pd.read_csv(folder / "genetic_interactions" / name, sep="\t", index_col=0)
    guides = matrix.index.to_numpy(dtype=str)
    genes = np.array([gene_of(guide) for guide in guides])
    if seed is not None:
        is_gene = ~np.char.startswith(guides, "negative_control")
        genes[is_gene] = np.random.default_rng(seed).permutation(genes[is_gene])
    first, second = np.triu_indices(len(guides), 1)
    some = (genes[first] != genes[second]) | (genes[first] == "control")
    first, second = first[some], second[some]
    names = {
        key: pd.Series(part[first]) + "|" + part[second]
        for key, part in (("perturbation", genes), ("guides", guides))
    }
    return pd.DataFrame({**names, "fitness": matrix.to_numpy()[first, second]})


def gene_of(guide: str) -> str:
    """Return the gene of a guide."""
    if not guide.startswith("negative_control"):
        return guide.split("_")[0]
    number = int(guide.rsplit("_", 1)[1])
    return "control" if number % 2 else f"none{number // 4}"


def call(table: pd.DataFrame, expectation: str) -> pd.DataFrame:
    """Return the tests of pairs, by name."""
    found = synergy(table, **KEYS, expectation=expectation, n_bootstrap=200)
    return found.set_index("perturbation")


def is_null(found: pd.DataFrame) -> np.ndarray:
    """Return pairs with a gene that is made of negative controls."""
    return np.asarray(found.index.str.contains("none"))


def guide_signs(table: pd.DataFrame, expectation: str, signs: pd.Series) -> pd.Series:
    """Return the share of each pair's guide pairs whose excess has the given sign."""
    units = units_of(read_screen(table, COLUMNS))
    units = with_expected(units, SCALES["log"], expectation == "fitted")
    names = units["first"] + "|" + units["second"]
    agrees = np.sign(units["excess"]) == names.map(signs)
    return agrees.groupby(names).mean().reindex(signs.index)


def confirmation(tables: list[pd.DataFrame], expectation: str) -> tuple[dict, pd.DataFrame]:
    """Return how calls of replicate 1 are confirmed by replicate 2, and lists of equal sizes."""
    one, two = (call(table, expectation) for table in tables)
    one = one[~is_null(one)]
    same = np.sign(one["excess"]) == np.sign(two["excess"].reindex(one.index))
    guides = guide_signs(tables[1], expectation, np.sign(one["excess"]))
    called = one["fdr"] < LEVEL
    by_cut = np.argsort(-one["excess"].abs().to_numpy())
    by_p = np.argsort(one["p_value"].to_numpy())
    n = int(called.sum())
    row = {
        "pairs": len(one), "called": n, "positive": (one["excess"][called] > 0).mean(),
        "confirmed": same[called].mean(), "confirmed, cut": same.iloc[by_cut[:n]].mean(),
        "guide pairs": guides[called].mean(), "guide pairs, cut": guides.iloc[by_cut[:n]].mean(),
        "longest cut as good": longest(same, by_cut, same[called].mean()),
        "longest list at 0.9, p-value": longest(same, by_p, 0.9),
        "longest list at 0.9, cut": longest(same, by_cut, 0.9),
    }  # fmt: skip
    rows = {
        size: {
            f"{word}, {name}": values.iloc[order[:size]].mean()
            for word, values in (("confirmed", same), ("guide pairs", guides))
            for name, order in (("p-value", by_p), ("cut", by_cut))
        }
        for size in SIZES
    }
    return row, pd.DataFrame.from_dict(rows, orient="index")


def longest(same: pd.Series, order: np.ndarray, share: float) -> int:
    """Return the length of the longest list that is confirmed as often."""
    shares = same.to_numpy()[order].cumsum() / np.arange(1, len(order) + 1)
    return int(np.flatnonzero(shares >= share).max()) + 1


def held_out_errors(table: pd.DataFrame) -> dict[str, float]:
    """Return root mean square errors of expected values, of pairs without a part in the fit."""
    units = units_of(read_screen(table, COLUMNS))
    scale = SCALES["log"]
    folds = np.random.default_rng(0).integers(N_FOLDS, size=len(units))
    folds = folds[units.groupby(PAIR, sort=False).ngroup().to_numpy()]
    bliss = units["observed"] - scale.bliss(units["a"], units["b"], units["c"])
    left = bliss.copy()
    for fold in range(N_FOLDS):
        left[folds == fold] -= fit_bend(units[folds != fold], scale)(units[folds == fold])
    return {"bliss": np.sqrt((bliss**2).mean()), "fitted": np.sqrt((left**2).mean())}


def uniformity(p_values: pd.Series) -> dict[str, float]:
    """Return shares of small p-values, and their largest distance from a uniform distribution."""
    shares = {f"below {level}": (p_values < level).mean() for level in (0.01, 0.05, 0.1, 0.5)}
    return {"pairs": len(p_values), **shares, "KS": stats.kstest(p_values, "uniform").statistic}


def nulls(table: pd.DataFrame, folder: Path, expectation: str) -> dict[tuple[str, str], dict]:
    """Return the uniformity of p-values of pairs without interactions."""
    shuffled = [call(read_fitness(folder, 1, seed), expectation) for seed in range(REPEATS)]
    parts = [found[~is_null(found)] for found in shuffled]
    found = call(table, expectation)
    rows = {"guides shuffled": pd.concat(parts), "negative controls": found[is_null(found)]}
    n_calls = {"guides shuffled": np.mean([(part["fdr"] < LEVEL).sum() for part in parts])}
    return {
        (expectation, name): {**uniformity(row["p_value"]), "calls": n_calls.get(name, np.nan)}
        for name, row in rows.items()
    }


def simulate_screen(
    rng: np.random.Generator,
    n_reps: int = 3,
    scale: str = "log",
    noise: Callable[[np.ndarray], np.ndarray] = EVEN,
    tails: float = np.inf,
    excess: float = 0.0,
    n_pairs: int = 60,
) -> pd.DataFrame:
    """Simulate 12 singles, and pairs that interact only by ``excess``.

    ``noise`` is the standard deviation by value, and ``tails`` the degrees of freedom of Student's
    distribution. There are four controls in each replicate.
    """
    n_singles = 12
    is_log = scale == "log"
    singles = rng.normal(-0.3, 0.2, n_singles) if is_log else rng.uniform(0.3, 1, n_singles)
    means = {"control": 0.0 if is_log else 1.0, **{f"g{i}": x for i, x in enumerate(singles)}}
    first, second = np.triu_indices(n_singles, 1)
    for k in rng.permutation(len(first))[:n_pairs]:
        a, b = singles[first[k]], singles[second[k]]
        means[f"g{first[k]}+g{second[k]}"] = (a + b if is_log else a * b) + excess
    sizes = [n_reps * (4 if name == "control" else 1) for name in means]
    centre = np.repeat(list(means.values()), sizes)
    draws = rng.normal(size=len(centre)) if np.isinf(tails) else rng.standard_t(tails, len(centre))
    unit = 1.0 if np.isinf(tails) else np.sqrt(tails / (tails - 2))
    values = centre + noise(centre) * draws / unit
    return pd.DataFrame(
        {
            "perturbation": np.repeat(list(means), sizes),
            "value": values if is_log else values.clip(min=0),
            "replicate": np.concatenate([np.arange(size) % n_reps for size in sizes]).astype(str),
        }
    )


def simulated() -> pd.DataFrame:
    """Return the uniformity of p-values, and coverage of intervals, in simulated screens."""
    rows = {}
    kinds = {"normal": (EVEN, np.inf), "heavy tails": (EVEN, 3.0), "by value": (by_value, np.inf)}
    for kind, scale, n_reps in product(kinds, ("log", "viability"), (2, 4)):
        screens = [
            simulate_screen(np.random.default_rng(seed), n_reps, scale, *kinds[kind])
            for seed in range(N_SCREENS)
        ]
        for design in DESIGNS:
            rows[kind, scale, n_reps, design] = calibration(screens, design, scale, "bliss")
    # eleven partners for each single
    screens = [simulate_screen(np.random.default_rng(i), n_pairs=66) for i in range(N_SCREENS)]
    for design in DESIGNS:
        rows["normal, fitted", "log", 3, design] = calibration(screens, design, "log", "fitted")
    return pd.DataFrame(rows).T


def calibration(
    screens: list[pd.DataFrame], design: str, scale: str, expectation: str
) -> dict[str, float]:
    """Return the uniformity of p-values and the coverage of intervals of all screens."""
    options = {"replicate_key": DESIGNS[design], "scale": scale, "expectation": expectation}
    found = pd.concat([synergy(screen, n_bootstrap=200, **options) for screen in screens])
    covered = (found["excess_lower"] <= 0) & (found["excess_upper"] >= 0)
    return {**uniformity(found["p_value"]), "90 %": covered.mean()}


def main() -> None:
    quietly(n_threads=1)
    columns = ["noise", "scale", "replicates", "design"]
    table = simulated().rename_axis(columns)
    print(f"Simulated screens without interactions:\n{table.round(3).to_string()}\n", flush=True)
    folder = real_folder()
    tables = [read_fitness(folder, replicate) for replicate in (1, 2)]
    errors = {f"replicate {i}": held_out_errors(table) for i, table in enumerate(tables, 1)}
    print(f"Error of expected values, held-out pairs:\n{pd.DataFrame(errors).round(4)}\n")
    rows, uniform = {}, {}
    for expectation in ("bliss", "fitted"):
        rows[expectation], sizes = confirmation(tables, expectation)
        print(f"Lists of equal sizes, {expectation}:\n{sizes.round(3).to_string()}\n", flush=True)
        uniform |= nulls(tables[0], folder, expectation)
    print(f"Calls at {LEVEL}:\n{pd.DataFrame(rows).round(3).to_string()}\n")
    print(f"P-values without interactions:\n{pd.DataFrame(uniform).T.round(3).to_string()}")


if __name__ == "__main__":
    main()
