"""How well a joint model explains each assay."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scvi.utils import unsupported_if_adata_minified

from betavi.model.joint_latent import JointLatentMixin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mudata import MuData
    from torch import Tensor


class JointEvaluateMixin(JointLatentMixin):
    """scvi-tools' getters, where cells lack assays."""

    @unsupported_if_adata_minified
    def get_reconstruction_error(
        self,
        mdata: MuData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        return_mean: bool = True,
    ) -> dict[str, Tensor]:
        """Return the distortion of each modality, in nats per cell.

        Parameters
        ----------
        mdata, indices, batch_size
            Which cells, and how many at once.
        return_mean
            Average over the cells that have the modality, and not over all.

        Returns
        -------
        ``reconstruction_loss_*`` by modality: a mean, or ``(n_cells,)`` with zeros where a cell
        lacks it.

        Examples
        --------
        >>> import betavi
        >>> mdata = betavi.datasets.simulate_multiome(n_cells=100, missing={"adt": 0.5})
        >>> betavi.JointVI.setup_mudata(mdata, {"rna": "zinb", "adt": "nb_mixture"})
        >>> sorted(betavi.JointVI(mdata).get_reconstruction_error())
        ['reconstruction_loss_adt', 'reconstruction_loss_rna']
        """
        mdata = self._validate_anndata(mdata)
        cells = self._cells(mdata, indices)
        found: dict[str, Tensor] = super().get_reconstruction_error(
            mdata, indices=cells, batch_size=batch_size, return_mean=False
        )
        if not return_mean:
            return found
        has = {name: mdata.obsmap[name][cells] > 0 for name in self.modalities}
        keys = {name: self.module._distortion_key(name) for name in self.modalities}
        return {key: found[key][has[name]].mean() for name, key in keys.items()}
