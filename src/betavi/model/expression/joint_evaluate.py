"""How well a joint model explains each assay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from scvi.utils import unsupported_if_adata_minified

from betavi.data import present_key
from betavi.model.core.latent import JointLatentMixin

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

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
        dataloader: Iterable[dict[str, Any]] | None = None,
        return_mean: bool = True,
    ) -> dict[str, Tensor]:
        """Return the distortion of each modality, in nats per cell.

        Parameters
        ----------
        mdata, indices, batch_size
            Which cells, and how many at once.
        dataloader
            Minibatches in the place of an object.
        return_mean
            Average over the cells that have the modality, and not over all.

        Returns
        -------
        ``reconstruction_loss_*`` by modality that any cell has: a mean, or ``(n_cells,)`` with zeros
        where a cell lacks it.

        Examples
        --------
        >>> import betavi
        >>> mdata = betavi.datasets.simulate_multiome(n_cells=100, missing={"adt": 0.5})
        >>> betavi.JointVI.setup_mudata(mdata, {"rna": "zinb", "adt": "nb_mixture"})
        >>> model = betavi.JointVI(mdata)
        >>> model.train(max_epochs=1, enable_progress_bar=False)
        >>> sorted(model.get_reconstruction_error())
        ['reconstruction_loss_adt', 'reconstruction_loss_rna']
        """
        if dataloader is None:
            mdata = self._validate_anndata(mdata)
            dataloader = self._make_data_loader(mdata, self._cells(mdata, indices), batch_size)
        keys = {self.module._distortion_key(name): present_key(name) for name in self.modalities}
        masks: dict[str, list[Tensor]] = {key: [] for key in keys}

        def watched() -> Iterator[dict[str, Any]]:
            """Remember which cells have what, and nothing else of a minibatch."""
            for tensors in dataloader:
                for key, mask in keys.items():
                    masks[key].append(tensors[mask].squeeze(1))
                yield tensors

        found: dict[str, Tensor] = super().get_reconstruction_error(
            dataloader=watched(), return_mean=False
        )
        has = {key: torch.cat(parts).to(self.device) for key, parts in masks.items()}
        measured = {key: found[key] for key, mask in has.items() if mask.any()}
        if not return_mean:
            return measured
        return {key: values[has[key]].mean() for key, values in measured.items()}
