"""Settings that must be equal in all processes of a run, compared before its first step.

Each process compiles its own program. If one had another learning rate, replicated parameters would
silently diverge; if one had another number of steps, the others would wait for it.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from efficientids_flax.train.options import TrainingOptions
from efficientids_flax.train.state.carried import TrainState
from efficientids_flax.train.state.disk.leaves import stored_leaves
from efficientids_flax.train.state.disk.sums import sums_of
from efficientids_flax.train.state.fingerprint import CLOSE, SHOWN, Facts, more
from efficientids_flax.train.state.processes import ProcessFault, all_states
from efficientids_flax.tree import flatten

OF_ONE = (
    "progress",
    "tensorboard",
    "wandb_project",
    "plot",
    "peak_flops",
)  # options of any process
VERSION = "python"  # of another one the same code looks different


def refuse_others(
    facts: Facts, options: TrainingOptions, state: TrainState, asked: Mapping[str, Any]
) -> None:
    """Raise if the processes' settings differ; all processes must call it.

    Args:
        facts: facts of the run.
        options: options of the run.
        state: the first state.
        asked: further arguments, as plain values.

    Raises:
        ProcessFault: in all processes; names which one differs from the first, and in what.
    """
    if jax.process_count() == 1:
        return
    leaves = stored_leaves(state)
    told = {name: value for name, value in options.to_dict().items() if name not in OF_ONE}
    shapes = {path: f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in leaves.items()}
    _compare({**facts, "options": told, "asked": asked, "leaf": shapes}, "{path} is {}, there {}")
    _compare(sums_of(leaves), "{path} has other numbers")


def _compare(own: Mapping[str, Any], words: str) -> None:
    first, *others = map(flatten, all_states(dict(own)))
    for number, other in enumerate(others, 1):
        paths = dict.fromkeys([*first, *other])
        if differ := [path for path in paths if not _alike(path, first, other)]:
            told = [
                words.format(_short(other.get(path)), _short(first.get(path)), path=path)
                for path in differ
            ]
            raise ProcessFault(
                f"process {number} is not set up as process 0: {', '.join(told[:SHOWN])}"
                f"{more(told)}; start all with the same configuration, seed and parameters"
            )


def _short(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


def _alike(path: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    place, _, name = path.rpartition("/")
    version = f"{place}/{VERSION}"
    if name in ("code", VERSION) and one.get(version) != other.get(version):
        return True
    left, right = one.get(path), other.get(path)
    if isinstance(left, float) and isinstance(right, float):
        return bool(np.isclose(left, right, rtol=CLOSE, atol=0.0))
    return left == right
