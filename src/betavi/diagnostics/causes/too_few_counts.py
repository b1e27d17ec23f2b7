"""Counts that are too few to show a signal above the noise."""

from betavi.diagnostics.causes._base import CauseRule, Evidence, Judgement


def _judge(found: Evidence) -> Judgement:
    if found.spectrum_without_covariates.n_factors:
        return None
    if found.of_images:
        return (
            "No direction in which images differ is significantly above noise. There are too few images, or "
            "they do not differ.",
            "Register more images, or images with less noise.",
        )
    return (
        "No direction in which cells differ is significantly above noise. The median total is "
        f"{found.spectrum.median_total:.0f} counts per cell. The counts are too few, or the cells do "
        "not differ.",
        "Register more genes or more cells, or remove shallow cells: "
        "sc.pp.filter_cells(adata, min_counts=...).",
    )


too_few_counts = CauseRule(_judge, priority=20, explains_last_resorts=True, is_trainable=False)
