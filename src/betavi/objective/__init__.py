"""The objective: terms of the loss, schedules of β, and a controller of the rate."""

from __future__ import annotations

from betavi.objective.controller import RateController, steer
from betavi.objective.schedule import (
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
from betavi.objective.terms import (
    constrained,
    distortion,
    free_bits,
    log_density,
    off_capacity,
    rate,
    rates,
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
