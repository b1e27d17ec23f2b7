"""Where cells are in a joint latent space, from any of their modalities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from scvi import REGISTRY_KEYS
from scvi.model.base import BaseModelClass, VAEMixin

from betavi._tables import close_matches
from betavi.data import present_key
from betavi.likelihoods import LIKELIHOODS
from betavi.model.setup.messages import warn

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from mudata import MuData
    from torch import Tensor

    from betavi.likelihoods import Likelihood
    from betavi.module import MultimodalVAE
    from betavi.nn import TypicalLibrary


class JointLatentMixin(VAEMixin, BaseModelClass):
    """Posteriors given some modalities."""

    module: MultimodalVAE

    @property
    def modalities(self) -> list[str]:
        """Names of the modalities."""
        return list(self.registry_["setup_args"]["likelihoods"])

    def _likelihood(self, name: str) -> str:
        likelihood: str = self.registry_["setup_args"]["likelihoods"][name]
        return likelihood

    def _kind(self, name: str) -> type[Likelihood]:
        return LIKELIHOODS[self._likelihood(name)]

    def _features(self, name: str) -> list[str]:
        """Return the names of the features of a modality."""
        return list(self.registry_["field_registries"][name]["state_registry"]["column_names"])

    @torch.inference_mode()
    def get_latent_representation(
        self,
        mdata: MuData | None = None,
        modalities: Sequence[str] | str | None = None,
        indices: Sequence[int] | None = None,
        give_mean: bool = True,
        return_dist: bool = False,
        batch_size: int | None = None,
        dataloader: Iterable[dict[str, Any]] | None = None,
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Return the latent position of each cell.

        Parameters
        ----------
        mdata, indices, batch_size
            Which cells, and how many at once.
        modalities
            Which of them to infer it from; all that a cell has if None.
        give_mean
            Return the posterior's mean, and not a draw.
        return_dist
            Return mean and variance, which of a mixture are those of the whole.
        dataloader
            Minibatches to infer it from, in the place of an object.

        Returns
        -------
        ``(n_cells, n_latent)``, or two such arrays, in the order of ``mdata.obs_names``. NaN where a
        cell has none of the modalities.

        Raises
        ------
        ValueError
            If a modality is unknown.

        Examples
        --------
        >>> import betavi
        >>> mdata = betavi.datasets.simulate_multiome(n_cells=100)
        >>> betavi.JointVI.setup_mudata(mdata, {"rna": "zinb", "adt": "nb_mixture"})
        >>> model = betavi.JointVI(mdata, n_latent=5)
        >>> model.train(max_epochs=1, enable_progress_bar=False)
        >>> model.get_latent_representation(modalities="rna").shape
        (100, 5)
        """
        means, variances = [], []
        chosen = self._chosen(modalities)
        if dataloader is None:
            minibatches = self._seen_by(mdata, chosen, indices, batch_size)
        else:
            minibatches = (self._masked(tensors, chosen) for tensors in dataloader)
        for tensors in minibatches:
            inferred = self.module.inference(**self.module._get_inference_input(tensors))
            q = inferred["qz"]
            nothing = ~self._has_any(tensors)
            value = self.module.latent.transform(q.mean) if give_mean else inferred["z"]
            value, variance = (q.mean if return_dist else value), q.variance
            means.append(value.masked_fill(nothing, torch.nan).cpu())
            variances.append(variance.masked_fill(nothing, torch.nan).cpu())
        found, spread = torch.cat(means).numpy(), torch.cat(variances).numpy()
        if n_lost := int(np.isnan(found[:, 0]).sum()):
            warn(f"{n_lost} cell(s) have none of the modalities asked for: their position is NaN.")
        return (found, spread) if return_dist else found

    def _chosen(self, modalities: Sequence[str] | str | None) -> list[str]:
        """Return the modalities that are meant."""
        if modalities is None:
            return self.modalities
        chosen = [modalities] if isinstance(modalities, str) else list(modalities)
        for name in chosen:
            if name not in self.modalities:
                raise ValueError(
                    f"The model has no modality {name!r}. {close_matches(name, self.modalities)}"
                )
        if not chosen:
            raise ValueError("modalities names none: leave it out to take all.")
        return chosen

    def _cells(
        self, mdata: MuData, indices: Sequence[int] | Sequence[bool] | np.ndarray | None
    ) -> np.ndarray:
        """Return the positions of cells that were asked for by number, mask, or not at all."""
        everyone = np.arange(mdata.n_obs)
        if indices is None:
            return everyone
        chosen = np.asarray(indices)
        return everyone[chosen if chosen.size else chosen.astype(np.int64)]

    def _seen_by(
        self,
        mdata: MuData | None,
        modalities: Sequence[str],
        indices: Sequence[int] | np.ndarray | None,
        batch_size: int | None,
    ) -> Iterator[dict[str, Any]]:
        """Yield minibatches in which all other modalities are masked."""
        self._check_if_trained(warn=False)
        mdata = self._validate_anndata(mdata)
        self.module.eval()
        for tensors in self._make_data_loader(mdata, indices, batch_size):
            yield self._masked(tensors, modalities)

    def _masked(self, tensors: dict[str, Any], modalities: Sequence[str]) -> dict[str, Any]:
        """Return a minibatch in which all other modalities are masked."""
        hidden = [present_key(name) for name in self.modalities if name not in modalities]
        return tensors | {key: torch.zeros_like(tensors[key]) for key in hidden}

    def _drawn(self, tensors: dict[str, Any], n_samples: int) -> Tensor:
        """Return draws of z, of which there is a first axis if they are several."""
        inputs = self.module._get_inference_input(tensors)
        z: Tensor = self.module.inference(**inputs, n_samples=n_samples)["z"]
        return z

    def _px(
        self,
        z: Tensor,
        tensors: dict[str, Any],
        name: str,
        log_size: Tensor,
        transform_batch: int | None = None,
    ) -> Any:
        """Return p(x given z) of one modality, in cells of some sizes.

        A cell of a batch in which nobody measured the modality is decoded as one of another batch:
        its own is one of which the decoder has learned nothing.
        """
        module, key = self.module, REGISTRY_KEYS.BATCH_KEY
        batch = self._measured(tensors, name)
        if transform_batch is not None:
            batch = self._typical(name).measured(torch.full_like(batch, transform_batch))
        library = {name: log_size.expand(*z.shape[:-1], 1)}
        inputs = module._get_generative_input(tensors | {key: batch}, {"z": z, "library": library})
        return module.generative(**inputs)["px"][name]

    def _measured(self, tensors: dict[str, Any], name: str) -> Tensor:
        """Return the batches of cells, or those that stand in where a modality was not measured."""
        return self._typical(name).measured(tensors[REGISTRY_KEYS.BATCH_KEY].to(self.device))

    def _typical(self, name: str) -> TypicalLibrary:
        return cast("TypicalLibrary", self.module.typical_libraries[name])

    def _has_any(self, tensors: dict[str, Any]) -> torch.Tensor:
        """Return which cells have any modality that is not masked, ``(n_cells, 1)``."""
        masks = [tensors[present_key(name)] for name in self.modalities]
        return torch.stack(masks).any(dim=0).to(self.device)
