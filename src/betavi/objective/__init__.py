"""Training objective: loss terms, schedules of β, and a controller of the rate."""

from __future__ import annotations

from betavi.objective.controller import RateController, steer
from betavi.objective.schedule import SCHEDULES, schedule_of
from betavi.objective.schedule._base import Schedule, join, repeat, scale
from betavi.objective.schedule.constant import constant
from betavi.objective.schedule.cosine import cosine
from betavi.objective.schedule.cyclical import cyclical
from betavi.objective.schedule.linear import linear
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
