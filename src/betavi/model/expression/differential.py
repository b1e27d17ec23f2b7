"""Which genes differ between groups of cells."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from scvi import REGISTRY_KEYS
from scvi.model.base import RNASeqMixin

from betavi.model.expression.groups import Groups

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData


class CompareMixin(RNASeqMixin):
    """scvi-tools' tests, which are told what they are asked for."""

    def differential_expression(
        self,
        adata: AnnData | None = None,
        groupby: str | None = None,
        group1: Sequence[str] | str | None = None,
        group2: str | None = None,
        idx1: Sequence[int] | Sequence[bool] | str | None = None,
        idx2: Sequence[int] | Sequence[bool] | str | None = None,
        mode: str = "vanilla",
        *args: Any,
        **kwargs: Any,
    ) -> pd.DataFrame:
        """Compare groups of cells, gene by gene, with scvi-tools' tests.

        What is compared are draws of what the decoder expects, one of each cell drawn: they know
        which genes a model holds for different, and their p-values are the model's.

        Parameters
        ----------
        adata
            Which cells; the model's own if None.
        groupby, group1, group2
            Column of ``obs``, and which of its groups are compared: each with all others if None.
        idx1, idx2
            Cells instead of groups: names, positions, a mask, or a query of ``obs``, such as
            ``"cell_type == 'B' and condition == 'treated'"``.
        mode
            ``"vanilla"``, which group is the higher (Lopez et al., 2018), or ``"change"``, the
            probability that the effect is larger than ``delta`` (Boyeau et al., 2019).
        *args, **kwargs
            ``delta``, ``fdr_target``, ``batch_correction``, ``silent`` and others, see
            :meth:`scvi.model.SCVI.differential_expression`.

        Returns
        -------
        One row per gene and comparison, see :meth:`scvi.model.SCVI.differential_expression`.

        Raises
        ------
        KeyError
            If there is no such column or group.
        ValueError
            If nothing is to be compared, a query selects no cell, or the test is unknown.
        RuntimeError
            If the model is not trained.

        References
        ----------
        Lopez et al. (2018), Deep generative modeling for single-cell transcriptomics. Boyeau et al.
        (2019), Deep generative models for detecting differential expression in single cells.

        Examples
        --------
        >>> import betavi
        >>> adata = betavi.datasets.simulate_counts(n_cells=200, n_genes=20)
        >>> betavi.BetaVI.setup_anndata(adata)
        >>> model = betavi.BetaVI(adata)
        >>> model.train(max_epochs=1, enable_progress_bar=False)
        >>> found = model.differential_expression(
        ...     groupby="cell_type", group1="type_0", mode="change", silent=True
        ... )
        >>> found.shape[0], "proba_de" in found
        (20, True)
        """
        obs = (self.adata if adata is None else adata).obs
        asked = Groups(groupby, group1, group2, idx1, idx2).numbered(obs.index)
        groups = asked.checked(obs, mode)
        test = super().differential_expression
        # scvi-tools takes it by place, too
        said = inspect.signature(test).bind(adata, *groups, mode, *args, **kwargs).arguments
        if said.get("batch_correction"):
            self._check_if_trained(warn=False)
            manager = self.get_anndata_manager(self._validate_anndata(adata), required=True)
            batch = manager.get_from_registry(REGISTRY_KEYS.BATCH_KEY).ravel()
            groups.tell_of_batches(obs, batch)
        found: pd.DataFrame = test(adata, *groups, mode, *args, **kwargs)
        return found
