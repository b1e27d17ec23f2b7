"""Networks that predict the details of a coarse image."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import nn
from torch.nn.functional import pad, unfold

from betavi.likelihoods._haar import N_DIRECTIONS

if TYPE_CHECKING:
    from torch import Tensor

N_MAPS, N_LAYERS = 16, 3
"""Maps and layers of the networks that predict details."""

SIDE = 5
"""Side of the square of the coarse image that predicts a detail in a straight line."""

RIDGE = 1e-4
"""Share of the mean variance that is added in the least squares at the start. Not tuned."""

SMALL_WEIGHT = 0.1
"""Factor of the last layer's initial weights, so that training starts near least squares."""

FAINT = 10.0
"""Factor that spreads faint values of an image, whose bright values are rare. Not tuned."""

MOST_PLACES = 2**19
"""Pixels of coarse images in the least squares at the start. Not tuned."""

SMALLEST = 1e-6
"""Smallest standard deviation, of constant maps."""

WIDEST = 3.0
"""Largest change of the log noise by its surroundings."""


class DetailNetwork(nn.Module):
    """Prediction of the details of a coarse image: their mean, and a change of their log noise.

    The mean is a linear map of the coarse image's difference from the decoder's image, and a small
    network. It starts at least squares.

    Parameters
    ----------
    n_channels
        Number of channels.
    """

    mean: Tensor
    deviation: Tensor
    scale: Tensor

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        n_details = N_DIRECTIONS * n_channels
        layers: list[nn.Module] = []
        for n_in in [2 * n_channels] + [N_MAPS] * (N_LAYERS - 1):
            layers += [nn.Conv2d(n_in, N_MAPS, 3, padding=1, padding_mode="replicate"), nn.GELU()]
        last = nn.Conv2d(N_MAPS, 2 * n_details, 1)
        with torch.no_grad():
            last.weight.mul_(SMALL_WEIGHT)
            cast("Tensor", last.bias).zero_()
        self.network = nn.Sequential(*layers, last)
        self.linear = nn.Conv2d(
            n_channels, n_details, SIDE, padding=SIDE // 2, padding_mode="replicate", bias=False
        )
        for name, number in (("mean", n_channels), ("deviation", n_channels), ("scale", n_details)):
            self.register_buffer(name, torch.ones(number, 1, 1))

    def forward(self, coarse: Tensor, difference: Tensor) -> tuple[Tensor, Tensor]:
        """Return the details' mean and the change of their log noise.

        ``coarse`` and ``difference`` are the coarse image, and its difference from the decoder's,
        ``(..., n_channels, height, width)``. The results have three maps for each channel.
        """
        image, change = (coarse - self.mean) / self.deviation, difference / self.deviation
        inputs = torch.cat([image, (FAINT * image).asinh()], dim=-3).flatten(0, -4)
        details, log_noise = self.network(inputs).chunk(2, dim=1)
        details = self.scale * (details + self.linear(change.flatten(0, -4)))
        log_noise = WIDEST * (log_noise / WIDEST).tanh()
        shape = coarse.shape[:-3]
        return details.unflatten(0, shape), log_noise.unflatten(0, shape)

    @torch.no_grad()
    def start_at(self, coarse: Tensor, difference: Tensor, details: Tensor) -> Tensor:
        """Start at least squares, and return what is left of the details."""
        self.mean.copy_(coarse.mean(dim=(0, 2, 3))[:, None, None])
        self.deviation.copy_(_root_mean_square(coarse - self.mean))
        self.scale.copy_(_root_mean_square(details))
        change = difference / self.deviation
        # every n-th image, because each pixel has 25 neighbours
        some = slice(None, None, 1 + change[:, 0].numel() // MOST_PLACES)
        around = unfold(pad(change[some], [SIDE // 2] * 4, mode="replicate"), SIDE)
        x = around.transpose(1, 2).flatten(0, 1).double()
        y = (details[some] / self.scale).flatten(2).transpose(1, 2).flatten(0, 1).double()
        square = x.T @ x
        square.diagonal().add_(RIDGE * square.diagonal().mean() + SMALLEST)
        weight = torch.linalg.solve(square, x.T @ y)
        self.linear.weight.copy_(weight.T.reshape(self.linear.weight.shape))
        return details - self.scale * self.linear(change)


def _root_mean_square(maps: Tensor) -> Tensor:
    """Return the root mean square of each map, ``(n_maps, 1, 1)``."""
    return maps.square().mean(dim=(0, 2, 3)).sqrt().clamp_min(SMALLEST)[:, None, None]
