"""Simulated perturbation screens with known effects."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from betavi.datasets import draws
from betavi.datasets.expected_profile import expected_shares
from betavi.datasets.perturbation_effects import (
    CONTROL,
    EffectDistribution,
    condition_shift,
    draw_truth,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.random import Generator
    from numpy.typing import ArrayLike


def simulate_perturbations(
    n_cells: int = 5000,
    n_genes: int = 500,
    n_perturbations: int = 10,
    n_combinations: int = 0,
    *,
    effects: EffectDistribution | None = None,
    doses: Sequence[float] | None = None,
    n_contexts: int = 1,
    n_replicates: int = 1,
    replicate_sd: float = 0.0,
    control_share: float = 0.2,
    n_factors: int = 5,
    state_sd: float = 0.5,
    library_size: float = 1000.0,
    theta: ArrayLike | None = None,
    seed: int = 0,
) -> AnnData:
    """Simulate counts of cells with and without perturbations, with known effects on genes.

    The mean counts of a cell are its library size times a softmax over genes. The input of the
    softmax is the sum of these terms: a constant of the gene, the gene's loadings times the state
    :math:`z` of the cell, a shift by the context, the effects of the perturbations of the cell, and
    noise of the replicate. The effects of a pair are the sum of both effects and an interaction.
    States do not depend on perturbations. Conditions have equally many cells, up to rounding.

    Parameters
    ----------
    n_cells, n_genes, n_perturbations
        Numbers of cells, genes and single perturbations.
    n_combinations
        Number of pairs of perturbations.
    effects
        Distribution of effects. By default ``EffectDistribution()``: one tenth of the genes,
        independent between perturbations, additive, and the same in all contexts.
    doses
        Doses, above 0. Every perturbed cell has one of them, and both perturbations of a pair have
        the same. Effects follow a Hill curve of the dose. Interactions are scaled by both curves.
        By default there are no doses, and effects are full.
    n_contexts
        Number of contexts, such as cell lines. Their base expression differs.
    n_replicates
        Number of replicates of every condition.
    replicate_sd
        Standard deviation, in natural log units, of noise of a gene. All cells of one perturbation,
        dose, context and replicate share it.
    control_share
        Share of the cells without perturbation.
    n_factors
        Dimension of :math:`z`.
    state_sd
        Standard deviation of :math:`z` in each dimension.
    library_size
        Median number of counts per cell.
    theta
        Inverse dispersion, a number or ``(n_genes,)``. Infinity gives Poisson counts. By default it
        is drawn for each gene.
    seed
        Seed of the generators. Base expression and effects do not depend on the number of cells.

    Returns
    -------
    Counts in ``X`` (CSR, int32). ``obs`` has ``perturbation`` (such as ``"control"``, ``"P0"`` or
    ``"P0+P1"``), ``dose`` (if there are doses; 0 for controls), ``context``, ``replicate``,
    ``sample`` (the cells that share noise) and ``library_size``. The truth of genes and cells is in
    ``var["log_base"]``, ``var["theta"]``, ``varm["loadings"]`` and ``obsm["z"]``. In natural log
    units, ``uns["truth"]`` has tables with a row for each gene: ``effects`` by perturbation,
    ``interactions`` by pair, ``context_shifts`` by context and ``sample_noise`` by sample.
    ``context_deviations`` has one table by perturbation for each context. They are added to
    ``effects``. With doses, ``dose_curves`` has ``ec50`` and ``slope`` of each perturbation. With
    programs, ``effects`` is the product of ``programs`` and ``program_weights``.

    Raises
    ------
    ValueError
        If a number is out of range, or there are more conditions than perturbed cells.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_perturbations(n_cells=300, n_perturbations=3, doses=(1, 10))
    >>> list(adata.obs["perturbation"].cat.categories), sorted(adata.obs["dose"].unique().tolist())
    (['control', 'P0', 'P1', 'P2'], [0.0, 1.0, 10.0])
    >>> adata.uns["truth"]["effects"].shape
    (500, 3)
    """
    doses = None if doses is None else [float(dose) for dose in doses]
    n_conditions = (n_perturbations + n_combinations) * len(doses or [0])
    n_controls = max(1, round(control_share * n_cells))
    n_pairs = n_perturbations * (n_perturbations - 1) // 2
    numbers = {"n_genes": n_genes, "n_perturbations": n_perturbations}
    numbers |= {"n_contexts": n_contexts, "n_replicates": n_replicates}
    spreads = {"n_factors": n_factors, "state_sd": state_sd, "replicate_sd": replicate_sd}
    enough = f"at least {n_controls + n_conditions}: {n_controls} controls and 1 cell per condition"
    is_theta = theta is None or _are_thetas(theta, n_genes)
    draws.check_rules(
        (
            *((name, number, number >= 1, "at least 1") for name, number in numbers.items()),
            *((name, number, number >= 0, "at least 0") for name, number in spreads.items()),
            ("n_combinations", n_combinations, 0 <= n_combinations <= n_pairs, f"0 to {n_pairs}"),
            ("control_share", control_share, 0 < control_share < 1, "above 0 and below 1"),
            ("library_size", library_size, library_size > 0, "above 0"),
            ("doses", doses, doses is None or _are_doses(doses), "different numbers above 0"),
            ("theta", theta, is_theta, f"1 or {n_genes} numbers above 0"),
            ("n_cells", n_cells, n_cells >= n_controls + n_conditions, enough),
        )
    )
    gene_rng, effect_rng, rng = np.random.default_rng(seed).spawn(3)
    var = pd.DataFrame(index=[f"gene_{i}" for i in range(n_genes)])
    var["log_base"] = gene_rng.normal(size=n_genes)
    loadings = draws.draw_loadings(gene_rng, n_genes, n_factors)
    drawn = draws.draw_theta(gene_rng, n_genes)
    var["theta"] = drawn if theta is None else np.broadcast_to(theta, n_genes)
    sizes = n_perturbations, n_combinations, n_contexts
    truth = draw_truth(effect_rng, effects or EffectDistribution(), var.index, sizes, doses)
    obs = _draw_cells(rng, _levels(truth, doses, n_replicates), n_cells, n_controls)
    obs["library_size"] = draws.draw_library_sizes(rng, n_cells, library_size)
    noise = rng.normal(scale=replicate_sd, size=(n_genes, obs["sample"].nunique()))
    truth["sample_noise"] = pd.DataFrame(noise, var.index, list(obs["sample"].cat.categories))
    adata = AnnData(
        X=sparse.csr_matrix((n_cells, n_genes), dtype=np.int32),
        obs=obs,
        var=var,
        obsm={"z": state_sd * rng.normal(size=(n_cells, n_factors))},
        varm={"loadings": loadings},
        uns={"truth": truth},
    )
    adata.X = _draw_counts(rng, adata)
    return adata


def _are_doses(doses: Sequence[float]) -> bool:
    return 0 < len(set(doses)) == len(doses) and all(0 < dose < math.inf for dose in doses)


def _are_thetas(theta: ArrayLike, n_genes: int) -> bool:
    values = np.asarray(theta)
    return values.shape in {(), (n_genes,)} and bool((values > 0).all())


def _levels(
    truth: Mapping[str, Any], doses: list[float] | None, n_replicates: int
) -> dict[str, list[Any]]:
    """Return the levels of each factor of the design, for perturbed cells."""
    levels = {"perturbation": [*truth["effects"], *truth["interactions"]], "dose": doses or []}
    levels |= {"context": list(truth["context_shifts"])}
    levels |= {"replicate": [f"replicate_{i}" for i in range(n_replicates)]}
    return {name: values for name, values in levels.items() if values}


def _draw_cells(
    rng: Generator, levels: Mapping[str, list[Any]], n_cells: int, n_controls: int
) -> pd.DataFrame:
    """Return the condition and the sample of each cell, in random order."""
    of_controls = {**levels, "perturbation": [CONTROL]}
    if "dose" in levels:
        of_controls["dose"] = [0.0]
    parts = [_crossed(of_controls, n_controls), _crossed(levels, n_cells - n_controls)]
    obs = pd.concat(parts).iloc[rng.permutation(n_cells)]
    obs.index = pd.Index([f"cell_{i}" for i in range(n_cells)])
    obs["sample"] = pd.Categorical(obs.astype(str).agg(":".join, axis=1))
    for name in ("perturbation", "context", "replicate"):
        names = dict.fromkeys([*of_controls[name], *levels[name]])
        obs[name] = pd.Categorical(obs[name], list(names))
    return obs


def _crossed(levels: Mapping[str, list[Any]], n_cells: int) -> pd.DataFrame:
    """Spread cells evenly over all combinations of levels. The first factor varies fastest."""
    sizes = [len(values) for values in levels.values()]
    codes = np.unravel_index(np.arange(n_cells) % math.prod(sizes), sizes, order="F")
    columns = zip(levels.items(), codes, strict=True)
    return pd.DataFrame({name: np.array(values)[code] for (name, values), code in columns})


def _draw_counts(rng: Generator, adata: AnnData) -> sparse.csr_matrix:
    """Draw counts in blocks, so that no dense matrix of all cells is made."""
    truth, theta = adata.uns["truth"], adata.var["theta"].to_numpy()
    samples = adata.obs.drop_duplicates("sample").set_index("sample").sort_index()
    doses = samples.get("dose", [None] * len(samples))
    conditions = zip(samples["perturbation"], samples["context"], doses, strict=True)
    shifts = np.stack([condition_shift(truth, *condition) for condition in conditions])
    shifts += truth["sample_noise"].to_numpy().T
    codes, library = adata.obs["sample"].cat.codes.to_numpy(), adata.obs["library_size"].to_numpy()
    blocks = []
    for rows in draws.block_slices(adata.n_obs):
        mean = library[rows, None] * expected_shares(adata, rows, shifts[codes[rows]])
        counts = draws.draw_negative_binomial(rng, mean, theta)
        blocks.append(sparse.csr_matrix(counts.astype(np.int32)))
    return sparse.vstack(blocks, format="csr")
