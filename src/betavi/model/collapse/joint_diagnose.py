"""Whether a joint latent space is alive, as a whole and through each modality."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scvi.utils import unsupported_if_adata_minified

from betavi.diagnostics import Calls
from betavi.model.collapse.report import CELLS_AT_ONCE, FEWEST_CELLS, DiagnosisMixin, View

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd
    from mudata import MuData

    from betavi.diagnostics import CollapseReport, SignalSpectrum


class JointDiagnoseMixin(DiagnosisMixin):
    """Posterior collapse, seen and explained, also that of a single modality."""

    @unsupported_if_adata_minified
    def diagnose(
        self,
        mdata: MuData | None = None,
        modalities: Sequence[str] | str | None = None,
        indices: Sequence[int] | None = None,
        beta: float | None = None,
        seed: int = 0,
        show_progress: bool = True,
    ) -> CollapseReport:
        """Say whether the latent space is alive, and whether z knows of every modality.

        See :meth:`betavi.BetaVI.diagnose` for what is asked of each dimension. That is asked of the
        whole, and of each modality alone, with all others masked: its expert infers z, and its
        decoder is to need it. A dimension that one modality does not use may be another's, which is
        no fault; a modality that uses none at all has collapsed.

        Parameters
        ----------
        mdata, indices
            Which cells; of the model's own those held out in training, or all where these are fewer
            than 100, if None. Of more than 2,000, as many at random.
        modalities
            Which to look at alone, in addition to the whole; all if None. A modality that fewer than
            20 of the cells have is left out.
        beta
            Which β to ask a model of many about.
        seed
            Of the cells, draws and shuffles. The generator of torch is left as it was.
        show_progress
            Show a bar for the whole, and for each modality.

        Returns
        -------
        Verdict, causes, remedies and the numbers behind them; ``modalities`` has a report of each.
        Where posteriors are mixtures, ``scale`` is that of the whole mixture, and ``kl`` is NaN: it
        is no sum over dimensions.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If it is deterministic, a modality is unknown, or there are fewer than 20 cells.

        Examples
        --------
        >>> import betavi
        >>> mdata = betavi.datasets.simulate_multiome(n_cells=200)
        >>> betavi.JointVI.setup_mudata(mdata, {"rna": "zinb", "adt": "nb_mixture"})
        >>> model = betavi.JointVI(mdata, n_latent=3)
        >>> model.train(max_epochs=2, enable_progress_bar=False)
        >>> report = model.diagnose(show_progress=False)
        >>> list(report.modalities), len(report.dimensions)
        (['rna', 'adt'], 3)
        """
        self._refuse_to_diagnose()
        chosen = self._chosen(modalities)
        mdata = self._validate_anndata(mdata)
        cells = self._cells_to_judge(mdata) if indices is None else self._cells(mdata, indices)
        if len(cells) < FEWEST_CELLS:
            raise ValueError(f"A diagnosis takes at least {FEWEST_CELLS} cells, not {len(cells)}.")
        everyone = np.arange(mdata.n_obs) if mdata is self.adata or indices is None else cells
        whole = View(mdata, tuple(self.modalities), cells, everyone)
        alone = {}
        with self._own_draws(seed), self._at(beta):
            report = self._report(whole, np.random.default_rng(seed), show_progress)
            for name in chosen if len(self.modalities) > 1 else []:
                view = whole._replace(names=(name,), judged=cells[mdata.obsmap[name][cells] > 0])
                if len(view.judged) >= FEWEST_CELLS:
                    rng = np.random.default_rng(seed)
                    alone[name] = self._report(view, rng, show_progress)
        return replace(report, modalities=alone)

    def _minibatches(self, view: View) -> Iterable[dict[str, Any]]:
        return self._seen_by(view.adata, view.names, view.judged, CELLS_AT_ONCE)

    def _is_fault(self, view: View, dimensions: pd.DataFrame) -> bool:
        status = dimensions["status"]
        if self._is_whole(view):
            return super()._is_fault(view, dimensions)
        return bool(status.isin(["dead", "noise"]).all())

    def _is_whole(self, view: View) -> bool:
        return len(view.names) == len(self.modalities)

    def _calls(self, view: View) -> Calls:
        weight = "" if self._is_whole(view) else f"modality_weights={{{view.names[0]!r}: 10.0}}"
        retrain = f"JointVI(mdata, {weight})" if weight else self._repair()
        likelihoods = f"likelihoods={{{view.names[0]!r}: 'poisson', ...}}"
        return Calls(retrain, "JointVI(mdata, {})", f"JointVI.setup_mudata(mdata, {likelihoods})")

    def _spectra(
        self, view: View, rng: np.random.Generator, show_progress: bool
    ) -> tuple[SignalSpectrum, SignalSpectrum]:
        """Return the directions of the cells that have everything, or of what most cells have."""
        has = {name: view.adata.obsmap[name][view.everyone] > 0 for name in view.names}
        everything = np.all(list(has.values()), axis=0)
        if everything.sum() >= FEWEST_CELLS:
            whole = view._replace(everyone=view.everyone[everything])
            return super()._spectra(whole, rng, show_progress)
        most = max(has, key=lambda name: int(has[name].sum()))
        found = view._replace(names=(most,), everyone=view.everyone[has[most]])
        return super()._spectra(found, rng, show_progress)
