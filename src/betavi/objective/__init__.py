"""The objective, as pure functions of distributions and data; nats per cell throughout."""

from __future__ import annotations

from betavi.objective.elbo import distortion, rate

__all__ = ["distortion", "rate"]
