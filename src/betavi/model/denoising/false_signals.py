"""Denoising asked for relations that are not there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse
from scvi import REGISTRY_KEYS
from sklearn.cluster import KMeans
from sklearn.decomposition import TruncatedSVD

from betavi._tables import close_matches
from betavi.data import COUNTS
from betavi.diagnostics import (
    BASELINES,
    correlated_share,
    log_normalised,
    marker_share,
    molecules,
    shuffle_genes,
    some_of_each,
)
from betavi.model.core._transition import refuse_minified
from betavi.model.denoising.estimate import ESTIMATES
from betavi.model.denoising.retrain_single import RetrainSingleMixin

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from betavi.diagnostics import Shuffled

N_GROUPS = 8
N_COMPONENTS = 20


class FalseSignalsMixin(RetrainSingleMixin):
    """Counts what denoising makes up."""

    def check_false_signals(
        self,
        groups: Sequence[Any] | str | None = None,
        share: float = 0.5,
        seed: int = 0,
        show_progress: bool = True,
        **train_kwargs: Any,
    ) -> pd.DataFrame:
        """Shuffle genes, denoise, and count the relations that are found and are not there.

        A model like this one is trained on counts of which some genes were shuffled among cells of
        the same batch and of like depth. Whatever then correlates with such a gene, or makes it a
        marker of a group of cells, was made up by the denoising. Tests ask for independent
        measurements, and denoised values are none: neighbours lend each other their counts.

        Parameters
        ----------
        groups
            Of the cells, a column of ``obs`` or a value for each; the registered labels or, without
            those, eight clusters by the genes that are not shuffled, if None.
        share
            Of the genes to shuffle.
        seed
            Of the permutations.
        show_progress
            Show bars.
        **train_kwargs
            Passed to :meth:`train`; ``max_epochs`` is that of this model if it was trained.

        Returns
        -------
        A row for the counts, for each baseline and for each estimate: ``false_correlations``, the
        share of pairs of shuffled genes called correlated, on log(1 + counts per 10,000), at a
        level of 5 % over the number of pairs; ``correlations``, that of pairs of the other genes;
        ``false_markers`` and ``markers``, the shares of either that differ between the groups at a
        false discovery rate of 5 %.

        Raises
        ------
        KeyError
            If ``obs`` has no such column.
        ValueError
            If there are not as many groups as cells, one is of none, the registered values are no counts, or the
            object is minified.

        References
        ----------
        Andrews & Hemberg (2018), False signals induced by single-cell imputation.

        Examples
        --------
        >>> import betavi
        >>> adata = betavi.datasets.simulate_counts(n_cells=200, n_genes=20)
        >>> betavi.BetaVI.setup_anndata(adata)
        >>> model = betavi.BetaVI(adata, n_latent=3)
        >>> table = model.check_false_signals("cell_type", max_epochs=1, show_progress=False)
        >>> list(table.columns)
        ['false_correlations', 'correlations', 'false_markers', 'markers']
        """
        refuse_minified(self)
        if not 0 < share < 1:
            raise ValueError(f"share is between 0 and 1, and not {share!r}: some genes stay.")
        codes = self._codes_of(groups)
        counts = molecules(self.raw_counts())
        batch = self.adata_manager.get_from_registry(REGISTRY_KEYS.BATCH_KEY).ravel()
        shuffled = shuffle_genes(counts, batch, share, seed)
        false, true = some_of_each(shuffled.genes, counts.shape[1], seed)
        if codes is None:
            codes = _clusters(counts, true, seed)
        model = self._trained_on({COUNTS: shuffled.counts}, {}, show_progress, train_kwargs)
        rows = {name: make(shuffled.counts, seed) for name, make in BASELINES.items()}
        for estimate in ESTIMATES:
            rows[estimate] = model._expected_counts(COUNTS, estimate, 1, show_progress)
        found = {
            name: _found(blocks, shuffled, (false, true), codes) for name, blocks in rows.items()
        }
        return pd.DataFrame.from_dict(found, orient="index")

    def _codes_of(self, groups: Sequence[Any] | str | None) -> np.ndarray | None:
        """Return a code for each cell's group, None if nothing says what the groups are."""
        if groups is None:
            codes = np.asarray(self.adata_manager.get_from_registry(REGISTRY_KEYS.LABELS_KEY))
            return codes.ravel() if len(np.unique(codes)) > 1 else None
        if isinstance(groups, str):
            if groups not in self.adata.obs:
                raise KeyError(
                    f"obs has no column {groups!r}. {close_matches(groups, self.adata.obs)}"
                )
            groups = self.adata.obs[groups].tolist()
        if len(groups) != self.adata.n_obs:
            raise ValueError(
                f"groups are of {len(groups)} cells, and there are {self.adata.n_obs}."
            )
        codes = pd.factorize(np.asarray(groups, dtype=object))[0]
        if (codes < 0).any():
            cell = self.adata.obs_names[codes < 0][0]
            raise ValueError(f"groups do not say of which the cell {cell!r} is.")
        return codes


def _clusters(counts: sparse.csr_matrix, genes: np.ndarray, seed: int) -> np.ndarray:
    logs = sparse.csr_matrix(log_normalised(counts.toarray()[:, genes]))
    n_components = max(1, min(N_COMPONENTS, min(logs.shape) - 1))
    positions = TruncatedSVD(n_components, random_state=seed).fit_transform(logs)
    clusters = KMeans(min(N_GROUPS, len(positions)), random_state=seed, n_init=1)
    return clusters.fit_predict(positions)


def _found(
    blocks: Iterable[np.ndarray],
    shuffled: Shuffled,
    genes: tuple[np.ndarray, np.ndarray],
    groups: np.ndarray,
) -> dict[str, float]:
    """Return what tests find of genes that were shuffled, and of others."""
    both = np.concatenate(genes)
    values = np.concatenate([log_normalised(block)[:, both] for block in blocks])
    of_false, of_true = np.split(shuffled.within(values), [len(genes[0])], axis=1)
    return {
        "false_correlations": correlated_share(of_false),
        "correlations": correlated_share(of_true),
        "false_markers": marker_share(of_false, groups),
        "markers": marker_share(of_true, groups),
    }
