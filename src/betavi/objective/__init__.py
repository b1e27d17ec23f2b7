"""What is optimised: pure functions of distributions, rates and shares of a run."""

from __future__ import annotations

from betavi.objective.constraints import constrained, free_bits, off_capacity
from betavi.objective.controller import RateController, steer
from betavi.objective.elbo import distortion, log_density, rate, rates
from betavi.objective.schedules import (
    SCHEDULES,
    Schedule,
    constant,
    cosine,
    cyclical,
    end_of_warmup,
    join,
    linear,
    repeat,
    scale,
    schedule_of,
)

__all__ = [
    "SCHEDULES",
    "RateController",
    "Schedule",
    "constant",
    "constrained",
    "cosine",
    "cyclical",
    "distortion",
    "end_of_warmup",
    "free_bits",
    "join",
    "linear",
    "log_density",
    "off_capacity",
    "rate",
    "rates",
    "repeat",
    "scale",
    "schedule_of",
    "steer",
]
