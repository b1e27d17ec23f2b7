"""Data without a signal above their noise."""

from betavi.diagnostics.causes._base import LAST_RESORTS, CauseRule, Evidence, Judgement


def _judge(found: Evidence) -> Judgement:
    if found.spectrum_without_covariates.n_factors:
        return None
    return (
        f"no direction in which the cells differ is told from noise, at a median of "
        f"{found.spectrum.median_total:.0f} counts per cell: they are too few, or the cells do not "
        "differ.",
        "register more genes or more cells, or drop shallow cells: "
        "sc.pp.filter_cells(adata, min_counts=...).",
    )


too_few_counts = CauseRule(_judge, priority=20, explains=LAST_RESORTS)
