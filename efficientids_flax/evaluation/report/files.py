"""Writes the files of an evaluation: `report.json` for programs, `report.html` for people.

The page shows only what the JSON holds, and loads nothing else.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from efficientids_flax.evaluation.report.page import page
from efficientids_flax.evaluation.segments import Segment
from efficientids_flax.evaluation.whole import Evaluation
from efficientids_flax.whole_files import write_whole

FORMAT, VERSION = "efficientids-evaluation", 1
JSON, HTML = "report.json", "report.html"


def described(found: Evaluation, about: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """An evaluation as JSON values; unknown numbers are null.

    Args:
        found: result of `evaluate`.
        about: for the reader: 'model', 'data', 'split', ...
    """
    options = found.options
    candidates = "full catalogue"
    if options.sampled:
        candidates = f"{options.sampled} drawn items, and those held out"
    return {
        "format": FORMAT,
        "version": VERSION,
        "about": dict(about or {}),
        "ranking": {
            "candidates": candidates,
            "num_items": found.num_items,
            "seen_items": "left out" if options.exclude_seen else "stay",
            "held_out_items": "at once" if options.together else "each after all before it",
            "scoring": options.scoring,
            "equal_scores": "the lower item number first",
        },
        "intervals": {
            "method": "bootstrap over users, percentiles",
            "level": options.level,
            "resamples": options.resamples,
            "seed": options.seed,
        },
        "cutoffs": list(options.cutoffs),
        **_segment(found.whole),
        "catalogue": {name: _number(value) for name, value in found.catalogue.items()},
        "segments": [
            {"name": part.name, "by": part.by, **_segment(part)} for part in found.segments
        ],
        "first_hits": list(found.places),
        "lorenz_curve": [_number(value) for value in found.curve],
        "lists_without_items": found.empty,
        "notes": list(found.notes),
    }


def write_report(
    directory: str | os.PathLike[str], found: Evaluation, about: Mapping[str, Any] | None = None
) -> tuple[Path, Path]:
    """Write both files, each complete or not at all.

    Args:
        directory: created if it does not exist; files of an earlier report are replaced.
        found, about: see `described`.

    Returns:
        The paths of the JSON and of the page.
    """
    root = Path(directory)
    root.mkdir(parents=True, exist_ok=True)
    made = described(found, about)
    texts = {
        JSON: json.dumps(made, indent=1, allow_nan=False, ensure_ascii=False) + "\n",
        HTML: page(made),
    }
    for name, text in texts.items():
        write_whole(root / name, text)
    return root / JSON, root / HTML


def _segment(part: Segment) -> dict[str, Any]:
    return {
        "users": part.users,
        "questions": part.questions,
        "held_out": part.held_out,
        "metrics": {
            name: {"value": _number(one.value), "low": _number(one.low), "high": _number(one.high)}
            for name, one in part.metrics.items()
        },
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
