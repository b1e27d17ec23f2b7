"""Which features of an assay differ between groups of cells."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from scvi import REGISTRY_KEYS
from scvi.model.base._de_core import _de_core

from betavi.model.core.library_size import aligned
from betavi.model.expression.expression import JointExpressionMixin, Reading
from betavi.model.expression.groups import Groups
from betavi.model.setup.anndata import untouched_on_failure
from betavi.model.setup.check_mudata import lacks_counts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd
    from mudata import MuData
    from scvi.data import AnnDataManager

SMALLEST_COUNT = 0.01
"""Counts in a cell of typical size that are added before fold changes are taken: what is seen less
than once in a hundred cells has none. Of proteins, whose background is of many counts, it is one."""


class JointCompareMixin(JointExpressionMixin):
    """Differential expression, accessibility and abundance of proteins, with scvi-tools' tests."""

    def differential_expression(
        self,
        mdata: MuData | None = None,
        modality: str | None = None,
        groupby: str | None = None,
        group1: Sequence[str] | str | None = None,
        group2: str | None = None,
        idx1: Sequence[int] | Sequence[bool] | str | None = None,
        idx2: Sequence[int] | Sequence[bool] | str | None = None,
        mode: str = "change",
        delta: float | None = None,
        all_stats: bool = True,
        batch_correction: bool = False,
        batchid1: Sequence[str] | None = None,
        batchid2: Sequence[str] | None = None,
        fdr_target: float = 0.05,
        silent: bool = False,
        **kwargs: Any,
    ) -> pd.DataFrame:
        """Compare groups of cells, feature by feature.

        The cells compared are those that have the modality: what was only translated is no
        evidence. Their positions are inferred from all that they have.

        Parameters
        ----------
        mdata
            Which cells; the model's own if None.
        modality
            Which one; if None, the only one that is no protein and no accessibility.
        groupby, group1, group2
            Column of ``mdata.obs``, and which of its groups are compared: each with all others if
            None.
        idx1, idx2
            Cells instead of groups: names, positions, a mask, or a query of ``mdata.obs``.
        mode
            ``"change"``, the probability that the effect is larger than ``delta`` (Boyeau et al.,
            2019), or ``"vanilla"``, which group is the higher (Lopez et al., 2018).
        delta
            Smallest effect that counts: log2 fold change, 0.25 if None; of accessibility the
            difference of probabilities, 0.05 if None.
        all_stats
            Add means and shares of nonzero values of the raw counts, if the object has them.
        batch_correction, batchid1, batchid2
            Compare in the same batches, or in these.
        fdr_target
            False discovery rate of the features tagged.
        silent
            Show no bar.
        **kwargs
            Passed to :meth:`scvi.model.base.DifferentialComputation.get_bayes_factors`.

        Returns
        -------
        One row per feature and comparison, see :meth:`scvi.model.SCVI.differential_expression`;
        ``lfc_*`` are differences of probabilities where the modality is accessibility.

        Raises
        ------
        KeyError
            If there is no such column or group.
        ValueError
            If it is not clear which modality or which groups are meant, the test is unknown, or a
            group has no cells with the modality.

        References
        ----------
        Boyeau et al. (2019), Deep generative models for detecting differential expression in single
        cells. Lopez et al. (2018), Deep generative modeling for single-cell transcriptomics.

        Examples
        --------
        >>> import betavi
        >>> mdata = betavi.datasets.simulate_multiome(n_cells=200)
        >>> betavi.JointVI.setup_mudata(mdata, {"rna": "zinb", "adt": "nb_mixture"})
        >>> model = betavi.JointVI(mdata, n_latent=5)
        >>> model.train(max_epochs=1, enable_progress_bar=False)
        >>> found = model.differential_expression(
        ...     modality="adt", groupby="cell_type", group1="type_0", silent=True
        ... )
        >>> found.shape[0], "proba_de" in found
        (15, True)
        """
        mdata = self._validate_anndata(mdata)
        name = self._to_compare(modality)
        asked = Groups(groupby, group1, group2, idx1, idx2).numbered(mdata.obs_names)
        asked = asked.checked(mdata.obs, mode)
        _check_measured(mdata, name, asked)
        is_of_detection = self._kind(name).is_of_detection
        if is_of_detection and mode == "change":
            kwargs.setdefault("change_fn", _difference)
        delta = delta if delta is not None else 0.05 if is_of_detection else 0.25
        kwargs.setdefault("pseudocounts", self._pseudocounts(name))
        manager = self.get_anndata_manager(mdata, required=True)
        if batch_correction:
            asked.tell_of_batches(
                mdata.obs, manager.get_from_registry(REGISTRY_KEYS.BATCH_KEY).ravel()
            )
        with untouched_on_failure(mdata):
            return _de_core(
                adata_manager=manager,
                model_fn=partial(self._draws_of, name, np.random.default_rng(0)),
                representation_fn=None,
                **asked._asdict(),
                all_stats=all_stats and not lacks_counts(mdata),
                all_stats_fn=partial(_raw_statistics, name=name),
                col_names=self._features(name),
                mode=mode,
                batchid1=batchid1,
                batchid2=batchid2,
                delta=delta,
                batch_correction=batch_correction,
                fdr=fdr_target,
                silent=silent,
                **kwargs,
            )

    def _to_compare(self, modality: str | None) -> str:
        """Return the modality that is meant, any of those that are named."""
        if modality is None:
            return self._of_expression(None)
        (name,) = self._chosen(modality)
        return name

    def _pseudocounts(self, name: str) -> float:
        if not self._kind(name).reads_size:
            return 1.0
        return SMALLEST_COUNT / self._typical(name).usual.exp().item()

    def _draws_of(
        self,
        name: str,
        rng: np.random.Generator,
        mdata: MuData,
        indices: np.ndarray,
        transform_batch: str | int | None = None,
        n_samples_overall: int = 5000,
    ) -> np.ndarray:
        """Return so many draws of what the decoder says of cells that have the modality."""
        cells = indices[mdata.obsmap[name][indices] > 0]
        if not len(cells):
            raise ValueError(f"No cell of a group has {name!r}. Choose groups that were measured.")
        # in random order, as draws of two groups are compared one by one
        chosen = rng.choice(cells, n_samples_overall)
        ask = Reading(chosen, batches=transform_batch, return_numpy=True)
        return np.asarray(self._decoded(mdata, name, ask, self._reader(name)))

    def _reader(self, name: str) -> Callable[[Any], Any]:
        if self._kind(name).is_of_detection:
            return lambda px: px.mean
        return lambda px: px.get_normalized("scale")


def _difference(first: np.ndarray, second: np.ndarray, pseudocounts: float) -> np.ndarray:  # noqa: ARG001  # scvi-tools asks for three parameters
    return first - second


def _check_measured(mdata: MuData, name: str, asked: Groups) -> None:
    """Refuse groups without any cell that has the modality."""
    for group in asked.named if asked.idx1 is None else []:
        if not (mdata.obsmap[name] > 0)[(mdata.obs[asked.groupby] == group).to_numpy()].any():
            raise ValueError(f"No cell of the group {group!r} has {name!r}.")


def _raw_statistics(
    manager: AnnDataManager, idx1: np.ndarray, idx2: np.ndarray, name: str
) -> dict[str, np.ndarray]:
    """Return means and shares of nonzero values of the cells that have the modality."""
    rows, found = aligned(manager, name), {}
    for number, chosen in enumerate((idx1, idx2), start=1):
        counts = rows[np.flatnonzero(np.asarray(chosen) & rows.present)]
        found[f"raw_mean{number}"] = np.asarray(counts.mean(axis=0)).ravel()
        found[f"non_zeros_proportion{number}"] = np.asarray((counts != 0).mean(axis=0)).ravel()
    return found
