"""Interventions on a module: effects of removing a part of the latent space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from scvi import REGISTRY_KEYS
from torch.distributions import Normal

from betavi.kernels import totals
from betavi.module.infer import present_masks
from betavi.objective import distortion, rate, rates

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from torch import Tensor
    from torch.distributions import Distribution

    from betavi.module.vae import MultimodalVAE

Tensors = dict[str, Any]

REFINING_RATE = 0.05
"""Learning rate for posteriors with standard deviations of about 1."""

N_SPLITS = 4
"""Number of random splits of the features into two halves. More splits give less noise."""

COVARIATES = (
    REGISTRY_KEYS.BATCH_KEY, REGISTRY_KEYS.LABELS_KEY,
    REGISTRY_KEYS.CONT_COVS_KEY, REGISTRY_KEYS.CAT_COVS_KEY,
)  # fmt: skip


class Probe:
    """Measurements of a module on minibatches, at its current β, in nats per cell.

    Parameters
    ----------
    module
        Module in evaluation mode.
    batches
        Minibatches, which stay in memory.

    Examples
    --------
    >>> import torch
    >>> from betavi.module import BetaVAE, Probe
    >>> module = BetaVAE(n_input=30, n_batch=1).eval()
    >>> codes = torch.zeros(8, 1, dtype=torch.long)
    >>> probe = Probe(module, [{"X": torch.ones(8, 30), "batch": codes, "labels": codes}])
    >>> probe.posteriors()["loc"].shape, probe.without(dimension=0, centre=0.0)["loss"].shape
    ((8, 10), (8,))
    """

    def __init__(self, module: MultimodalVAE, batches: Sequence[Tensors]) -> None:
        self.module, self.batches = module, batches

    @torch.inference_mode()
    def posteriors(self) -> dict[str, np.ndarray]:
        """Return ``loc`` and ``scale`` of the posteriors, and ``rates``, the KL of each dimension.

        Each is ``(n_cells, n_latent)``. ``rates`` has one column if the KL is not a sum over
        dimensions.
        """
        parts: dict[str, list[Tensor]] = {"loc": [], "scale": [], "rates": []}
        for tensors in self.batches:
            inferred = self._inferred(tensors)
            q = inferred["qz"]
            parts["loc"].append(q.loc)
            parts["scale"].append(q.scale)
            parts["rates"].append(rates(q, self.module.current_prior(), inferred["u"]))
        return {name: _numpy(torch.cat(values)) for name, values in parts.items()}

    @torch.inference_mode()
    def log_totals(self) -> np.ndarray | None:
        """Return log(1 + total count) of each modality with a library size, ``(n_cells, n)``.

        None if no modality has a library size.
        """
        names = [k for k in self.module.decoders if self.module.likelihood(k).reads_size]
        columns = [
            torch.cat([totals(tensors[name]).log1p() for tensors in self.batches]) for name in names
        ]
        return _numpy(torch.cat(columns, dim=1)) if columns else None

    @torch.inference_mode()
    def without(self, dimension: int, centre: float) -> dict[str, np.ndarray]:
        """Return the effects of removing a dimension, from the decoder and from the data.

        ``loss``, ``(n_cells,)``, is the increase in distortion if the dimension is replaced by a
        sample of the prior. For ``halves``, ``(n_splits, 2, n_cells)``, data are drawn from the
        model with the dimension fixed at ``centre``, and features are split at random into two
        halves. Each entry is the shift of the dimension's posterior mean if one half of the
        features gets its measured values back.
        """
        losses, halves = [], []
        for tensors in self.batches:
            inferred = self._inferred(tensors)
            u, drawn = inferred["u"], inferred["u"].clone()
            drawn[:, dimension] = self.module.current_prior().sample((len(u),))[:, dimension]
            losses.append(self._nats(tensors, inferred, drawn) - self._nats(tensors, inferred, u))
            held = u.clone()
            held[:, dimension] = centre
            null = self._decoded(tensors, inferred, held)
            shifts = [self._put_back(tensors, null, dimension) for _ in range(N_SPLITS)]
            halves.append(torch.stack(shifts))
        return {"loss": _numpy(torch.cat(losses)), "halves": _numpy(torch.cat(halves, dim=2))}

    @torch.inference_mode()
    def at_centre(self, dimension: int, centre: float) -> dict[str, np.ndarray]:
        """Return the increase in distortion if a dimension has the same value in all cells.

        By modality, ``(n_cells,)``. It is 0 in cells without the modality. Samples of the other
        dimensions are the same before and after.
        """
        parts: dict[str, list[Tensor]] = {}
        for tensors in self.batches:
            inferred = self._inferred(tensors)
            held = inferred["u"].clone()
            held[:, dimension] = centre
            before = self._distortions(tensors, inferred, inferred["u"])
            for name, nats in self._distortions(tensors, inferred, held).items():
                parts.setdefault(name, []).append(nats - before[name])
        return {name: _numpy(torch.cat(values)) for name, values in parts.items()}

    def _put_back(self, tensors: Tensors, null: dict[str, Distribution], dimension: int) -> Tensor:
        """Return the shift of a posterior mean for each half of the features, ``(2, n_cells)``."""
        shifts = []
        halves = {name: torch.rand(px.mean.shape[-1]) < 0.5 for name, px in null.items()}
        for side in (True, False):
            counts = {name: self._as_input(name, px.sample()) for name, px in null.items()}
            mixed = {
                name: torch.where((halves[name] == side).to(x.device), tensors[name].to(x), x)
                for name, x in counts.items()
            }
            before, after = (
                self._inferred(tensors | data)["qz"].loc[:, dimension] for data in (counts, mixed)
            )
            shifts.append(after - before)
        return torch.stack(shifts)

    def _as_input(self, name: str, drawn: Tensor) -> Tensor:
        """Return drawn values that the encoder can read."""
        reads_logs = self.module.options.log_variational and name not in self.module.image_scales
        # a normal likelihood can draw values below 0, which have no logarithm
        return drawn.clamp_min(0.0) if reads_logs else drawn

    @torch.inference_mode()
    def distortions(self) -> tuple[dict[str, float], dict[str, float]]:
        """Return the mean distortion by modality, with each cell's own z and a z of the prior."""
        own: dict[str, list[Tensor]] = {}
        prior: dict[str, list[Tensor]] = {}
        for tensors in self.batches:
            inferred = self._inferred(tensors)
            drawn = self.module.current_prior().sample((len(inferred["u"]),))
            for where, u in ((own, inferred["u"]), (prior, drawn)):
                for name, nats in self._distortions(tensors, inferred, u).items():
                    where.setdefault(name, []).append(nats)
        return _means(own), _means(prior)

    @torch.inference_mode()
    def covariates(self) -> float:
        """Return the increase in distortion if the decoder reads the covariates of another cell."""
        losses = []
        for tensors in self.batches:
            inferred = self._inferred(tensors)
            order = torch.randperm(len(inferred["u"]))
            of_others = {k: tensors[k][order] for k in COVARIATES if tensors.get(k) is not None}
            mine = self._nats(tensors, inferred, inferred["u"])
            losses.append(self._nats(tensors | of_others, inferred, inferred["u"]) - mine)
        return torch.cat(losses).mean().item()

    @torch.inference_mode()
    def variance_ratio(self, name: str) -> np.ndarray:
        """Return the variance divided by the mean of a modality's likelihood, by feature."""
        means, variances = [], []
        for tensors in self.batches:
            inferred = self._inferred(tensors)
            px = self._decoded(tensors, inferred, inferred["u"])[name]
            means.append(px.mean.sum(dim=0))
            variances.append(px.variance.sum(dim=0))
        return _numpy(torch.stack(variances).sum(dim=0) / torch.stack(means).sum(dim=0))

    def amortisation_gap(self, n_steps: int, n_draws: int) -> np.ndarray:
        """Return the decrease in loss by refining each cell's posterior, nats, ``(n_cells,)``.

        Adam refines mean and log standard deviation while the decoder is fixed (Cremer et al.,
        2018). The same ``n_draws`` samples estimate the losses before and after. In a mixture, the
        component that uses all modalities of a cell is refined. Without such a component, the
        result is NaN.
        """
        gains = [self._refine(tensors, n_steps, n_draws) for tensors in self.batches]
        return _numpy(torch.cat(gains))

    def _refine(self, tensors: Tensors, n_steps: int, n_draws: int) -> Tensor:
        with torch.no_grad():
            inferred, prior = self._inferred(tensors), self.module.current_prior()
        q = self.module.fusion.full_posterior(inferred["qz"])
        if q is None:
            return torch.full((len(inferred["u"]),), torch.nan)
        parameters = [q.loc.clone().requires_grad_(), q.scale.log().requires_grad_()]
        optimizer = torch.optim.Adam(parameters, lr=REFINING_RATE)
        noise = torch.randn(n_draws, *q.loc.shape, device=q.loc.device)

        def loss(eps: Tensor) -> Tensor:
            loc, scale = parameters[0], parameters[1].exp()
            u = loc + scale * eps
            kl = rate(Normal(loc, scale, validate_args=False), prior, u)
            nats = self._distortions(tensors, inferred, u)
            weighted = sum(self.module.weights[name] * part for name, part in nats.items())
            return weighted + self.module.settled_beta * kl

        @torch.no_grad()
        def average() -> Tensor:
            return torch.stack([loss(eps) for eps in noise]).mean(dim=0)

        before = average()
        for _ in range(n_steps):
            gradients = torch.autograd.grad(loss(torch.randn_like(q.loc)).sum(), parameters)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
        return before - average()

    def _inferred(self, tensors: Tensors) -> Tensors:
        module = self.module
        return module.inference(**module._get_inference_input(tensors, full_forward_pass=True))

    def _decoded(self, tensors: Tensors, inferred: Tensors, u: Tensor) -> dict[str, Distribution]:
        module = self.module
        moved = inferred | {"u": u, "z": module.latent.transform(u)}
        outputs = module.generative(**module._get_generative_input(tensors, moved))
        return outputs["px"]

    def _distortions(self, tensors: Tensors, inferred: Tensors, u: Tensor) -> dict[str, Tensor]:
        present = {k: mask.to(u.device) for k, mask in present_masks(self.module, tensors).items()}
        return {
            name: distortion(px, tensors[name].to(u.device), present.get(name))
            for name, px in self._decoded(tensors, inferred, u).items()
        }

    def _nats(self, tensors: Tensors, inferred: Tensors, u: Tensor) -> Tensor:
        return torch.stack([*self._distortions(tensors, inferred, u).values()]).sum(dim=0)


def _means(parts: dict[str, list[Tensor]]) -> dict[str, float]:
    return {name: torch.cat(values).mean().item() for name, values in parts.items()}


def _numpy(values: Tensor) -> np.ndarray:
    return values.cpu().double().numpy()
