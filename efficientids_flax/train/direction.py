"""Whether a lower or a higher value of a metric is better."""

import re
from typing import Literal

Mode = Literal["min", "max"]

# Metrics that this package defines, without the prefix of an evaluation and with any cutoff.
_LESS = (
    "loss", "avg_xent", "log_pplx", "total_loss", "aux_loss", "z_loss", "total_xent", "perplexity",
    "squared_error", "quantile_loss",
)  # fmt: skip
_MORE = (
    "accuracy", "fraction_of_correct_next_step_preds", "recall", "mrr", "ndcg", "hit_rate",
    "precision", "map",
)  # fmt: skip


def direction(metric: str) -> Mode | None:
    """'min' or 'max'; None if it does not follow from the metric's name.

    Args:
        metric: for example 'eval_loss' or 'ndcg_at_10'.
    """
    name = re.sub(r"^(eval|test|train)_", "", metric.lower())
    name = re.sub(r"(_at_|@|_)\d+$", "", name)
    if name in _LESS:
        return "min"
    return "max" if name in _MORE else None


def mode_problems(metric: str, mode: Mode | None) -> list[str]:
    """What is wrong with optimising a metric in this direction: one sentence, or none.

    Args:
        metric: the metric that decides which checkpoint is best.
        mode: given by the user; None: derived from the metric's name.
    """
    known = direction(metric)
    if mode is None and known is None:
        return [
            f"best_mode: missing; whether less or more of keep_best='{metric}' is better does not"
            " follow from its name: give 'min' or 'max'"
        ]
    if mode is not None and known is not None and mode != known:
        return [
            f"best_mode: found '{mode}', but '{metric}' is best at its"
            f" {'least' if known == 'min' else 'greatest'}: leave best_mode out, or give '{known}'"
        ]
    return []


def settled_mode(metric: str, mode: Mode | None) -> Mode:
    """`mode`, or the direction that follows from the metric's name.

    Raises:
        ValueError: the name does not determine the direction, or contradicts `mode`.
    """
    if problems := mode_problems(metric, mode):
        raise ValueError("; ".join(problems))
    found = mode or direction(metric)
    assert found is not None
    return found
