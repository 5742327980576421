"""Metrics by their definitions: of each list, of all lists together, and intervals of means.

Read `lists`, then `catalogue`, and `intervals`, the bootstrap over users.
"""

from efficientids_flax.evaluation.metrics.catalogue import (
    average_popularity,
    coverage,
    exposure,
    gini,
)
from efficientids_flax.evaluation.metrics.intervals import Interval, bootstrap
from efficientids_flax.evaluation.metrics.lists import METRICS, list_metrics

__all__ = [
    "METRICS",
    "Interval",
    "average_popularity",
    "bootstrap",
    "coverage",
    "exposure",
    "gini",
    "list_metrics",
]
