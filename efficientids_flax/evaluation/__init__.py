"""How good recommendations are: metrics of held-out items, with intervals, as JSON and as a page.

Read `metrics`, what is measured, `questions`, what is asked of whom, `asking`, how it is asked and
what is kept of the answers, `segments`, the parts that are reported apart, then `whole`, the
evaluation, with its `options`, and `report`, its files. `popularity` counts what was trained on,
`sampled` draws the candidates of sampled metrics, `stored` evaluates an exported model.
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
