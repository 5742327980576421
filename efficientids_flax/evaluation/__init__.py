"""Evaluation of recommendations: metrics of held-out items with intervals, as JSON and HTML.

Read `metrics`, then `questions`, histories with their held-out items, `asking`, which gets the
recommendations and keeps what metrics need, `segments`, metrics of groups of users or items, then
`whole`, the evaluation, with its `options`, and `report`, its files. `popularity` counts how often
items occur in training, `sampled` draws candidates for sampled metrics, `stored` evaluates an
exported model.
"""

from efficientids_flax.evaluation.asking import Recommender
from efficientids_flax.evaluation.metrics import (
    METRICS,
    Interval,
    average_popularity,
    bootstrap,
    coverage,
    exposure,
    gini,
    list_metrics,
)
from efficientids_flax.evaluation.options import EvaluationOptions
from efficientids_flax.evaluation.popularity import training_counts
from efficientids_flax.evaluation.report import write_report
from efficientids_flax.evaluation.segments import Segment
from efficientids_flax.evaluation.stored import evaluate_stored
from efficientids_flax.evaluation.whole import (
    Evaluation,
    evaluate,
    evaluate_batches,
    evaluate_lists,
)

__all__ = [
    "METRICS",
    "Evaluation",
    "EvaluationOptions",
    "Interval",
    "Recommender",
    "Segment",
    "average_popularity",
    "bootstrap",
    "coverage",
    "evaluate",
    "evaluate_batches",
    "evaluate_lists",
    "evaluate_stored",
    "exposure",
    "gini",
    "list_metrics",
    "training_counts",
    "write_report",
]
