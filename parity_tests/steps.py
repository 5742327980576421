"""Compares optimizer steps: ours from the recorded state, with the recorded next state.

Each step starts from the recorded parameters before it, or from ours if they are not recorded. It
uses recorded gradients if there are any, else ours. The moments are those of our own steps so far,
which begin with the checkpoint's state or with a new one. If the recorded steps end at the
checkpoint, our moments must end as the checkpoint's.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from efficientids_flax.config import OptimizerConfig
from efficientids_flax.stored import OptimizerState
from efficientids_flax.stored.optimizer_states import AS_STORED
from efficientids_flax.train.optimizer import paxml_learner
from efficientids_flax.tree import flatten
from parity_tests.compare import (
    EXACT_DTYPE,
    HALF_DTYPES,
    HALF_NOISE,
    NOISE,
    QUANTUM,
    ROUNDING,
    Difference,
    Distance,
    distance,
    half_distance,
    judged,
    tolerance,
)
from parity_tests.recording import Recording, Step
from parity_tests.run import (
    Subject,
    Trained,
    flow_order,
    layer_of,
    to_our_tree,
    with_parameters,
)
from parity_tests.run.stepping import Made, largest_of, take_step, with_reach


def check_steps(subject: Subject, recording: Recording, trained: Trained) -> list[Difference]:
    """Compare every recorded step.

    Args:
        subject: the model with the checkpoint's parameters.
        recording: a recording with `steps`.
        trained: configuration and state of the optimizer.

    Returns:
        Entries for loss, parameters, and at the end the moments. If the steps cannot be taken, one
        entry 'not run' per step, with the reason.
    """
    reason = cannot(recording, trained)
    if reason is None:
        assert trained.optimizer is not None
        try:
            learner = paxml_learner(trained.optimizer, subject.config)
        except ValueError as error:
            reason = str(error)
        else:
            return _steps(subject, recording, trained, learner)
    return [
        Difference(
            f"step {step.number}", f"steps/{step.number}", "", "parameters", "not run", note=reason
        )
        for step in recording.steps
    ]


def cannot(recording: Recording, trained: Trained) -> str | None:
    """Why the recorded steps cannot be taken; None if they can."""
    words = {"ids", "inputs_embeds", "masked_ids"}
    if trained.optimizer is not None:
        if any(not words & step.inputs.keys() for step in recording.steps):
            return "the batch has no words: the original masked some at random"
        if recording.start is not None:
            return None
    return lacking(trained.optimizer, trained.state)


def lacking(optimizer: OptimizerConfig | None, state: OptimizerState | None) -> str | None:
    """Why training cannot continue from a converted checkpoint; None if it can."""
    if optimizer is None:
        return "the conversion knows no optimizer; --set optimizer.name=... and its values"
    if state is None or not state.optimizer:
        return "the checkpoint was converted without its optimizer state"
    if AS_STORED in state.optimizer:
        return "Adam's decay rates are not known; --set optimizer.beta1=... optimizer.beta2=..."
    return None


def _steps(
    subject: Subject, recording: Recording, trained: Trained, learner: Any
) -> list[Difference]:
    found: list[Difference] = []
    before, exact = subject, None
    if recording.start is not None:
        before = with_parameters(subject, recording, recording.start)
        state = learner.init(before.params)
    else:
        assert trained.state is not None
        state = trained.state.optimizer
    half = subject.backbone.dtype in HALF_DTYPES
    update = jax.jit(learner.update)
    nudged = [state, state]  # with gradients some roundings larger, and smaller
    for step in recording.steps:
        made = take_step(before, recording, step, update, state)
        if half:
            exact = take_step(before.in_dtype(EXACT_DTYPE), recording, step, update, state)
        else:
            made, nudged = with_reach(made, before, step, update, nudged)
        adam = trained.optimizer is not None and trained.optimizer.name == "adam"
        found += _compared(subject, recording, step, made, exact, adam)
        state = made.state
        taken = before.with_parameters(made.parameters)
        before = with_parameters(taken, recording, step.parameters)
    if recording.ends_at_checkpoint and trained.state is not None and trained.state.optimizer:
        number = recording.steps[-1].number
        found += _moments(number, state, trained.state.optimizer)
    return found


def _compared(
    subject: Subject,
    recording: Recording,
    step: Step,
    made: Made,
    exact: Made | None,
    adam: bool,
) -> list[Difference]:
    section, dtype = f"step {step.number}", subject.backbone.dtype
    found = []
    if step.loss is not None:
        base = Difference(section, f"steps/{step.number}/loss", "outputs/total_loss", "loss", "ok")
        recorded = np.asarray(step.loss, np.float32)
        reference = None if exact is None else exact.loss
        found.append(_judge(base, made.loss, recorded, reference, recording))
    given = to_our_tree(step.parameters, recording.names, subject)
    noise = NOISE * largest_of(made.gradients)
    for path in sorted(given, key=flow_order):
        recorded, names = given[path]
        base = Difference(section, f"steps/{step.number}/" + "+".join(names), path, "parameters",
                          "ok", recorded.shape, layer_of(path))  # fmt: skip
        if path not in made.parameters:
            found.append(replace(base, verdict="MISSING", note="our model has no such parameter"))
            continue
        slope = np.abs((exact or made).gradients[path])
        least = noise if exact is None else HALF_NOISE * float(np.max(slope, initial=0))
        chance = noise_of(slope, least) if adam else np.zeros(slope.shape, bool)
        if np.any(chance):
            count = int(np.sum(chance))
            note = f"{count} values left out: their gradients are zero up to rounding"
            base = replace(base, note=note)
        reference = None if exact is None else exact.parameters[path]
        mine = made.parameters[path]
        use = ~chance
        if path in made.reach and mine.shape == recorded.shape:
            reach = made.reach[path]
            base, use = within_reach(base, mine, recorded, reach, use, recording.tolerances)
        found.append(_judge(base, mine, recorded, reference, recording, dtype, use))
    return found


def within_reach(
    base: Difference,
    mine: np.ndarray,
    recorded: np.ndarray,
    reach: np.ndarray,
    use: np.ndarray,
    tolerances: Mapping[str, float] | None = None,
) -> tuple[Difference, np.ndarray]:
    """Leave out values that differ only as far as the rounding of gradients can move them.

    Returns:
        (the difference with a note on how many values and how far off, mask of what is left).
    """
    largest = float(np.max(np.abs(recorded), initial=0.0, where=use))
    allowed = tolerance(base.kind, EXACT_DTYPE, tolerances) * largest
    off = np.abs(np.asarray(mine, np.float64) - recorded)
    moved = use & (off > allowed) & (off <= allowed + reach)
    if not moved.any():
        return base, use
    count, worst = int(np.sum(moved)), float(np.max(off[moved])) / largest
    note = (
        f"{count} values off by up to {worst:.1e} left out: the rounding of their gradients moves"
        " them as far"
    )
    note = f"{base.note}; {note}" if base.note else note
    return replace(base, note=note), use & ~moved


def noise_of(slope: np.ndarray, noise: float) -> np.ndarray:
    """Where a gradient is rounding noise: small but not zero, or zero in a row with such values.

    Noise can cancel to zero; but a row of nothing but zeros is that of a word that did not occur.
    """
    small = slope < noise
    if not slope.ndim:
        return small & (slope > 0)
    row = small.all(-1, keepdims=True) & (slope > 0).any(-1, keepdims=True)
    return small & ((slope > 0) | row)


def _judge(
    base: Difference,
    mine: np.ndarray,
    recorded: np.ndarray,
    exact: np.ndarray | None,
    recording: Recording,
    dtype: str = EXACT_DTYPE,
    rows: np.ndarray | None = None,
) -> Difference:
    allowed = tolerance(base.kind, dtype, recording.tolerances)
    if exact is None:
        return judged(base, distance(mine, recorded, rows), allowed)
    gap, share = half_distance(mine, recorded, exact, rows, guard=False)
    least = ROUNDING if base.kind == "loss" else allowed
    return judged(base, gap, max(share, least))


def _moments(number: int, ours: Mapping[str, Any], recorded: Mapping[str, Any]) -> list[Difference]:
    """Compare our optimizer state after the last step with the checkpoint's."""
    mine, want = _flat(ours), _flat(recorded)
    found = []
    for name in sorted(mine.keys() | want.keys()):
        value = want.get(name)
        base = Difference(f"step {number}", f"optimizer/{name}", name, "optimizer", "ok",
                          () if value is None else value.shape)  # fmt: skip
        if name not in mine or value is None:
            where = "the checkpoint" if value is None else "our optimizer"
            found.append(replace(base, verdict="MISSING", note=f"{where} has none"))
            continue
        if mine[name].shape != value.shape:
            found.append(replace(base, verdict="SHAPE", note=f"ours is {list(mine[name].shape)}"))
            continue
        if value.dtype == np.int8:
            gap = np.abs(mine[name].astype(int) - value.astype(int))
            worst, count = float(np.max(gap, initial=0)), int(np.sum(gap > 0))
            note = f"int8: {count} of {gap.size} values one quantum apart" if count else ""
            found.append(judged(replace(base, note=note), Distance(worst, worst, worst), QUANTUM))
            continue
        found.append(judged(base, distance(mine[name], value), tolerance("optimizer", EXACT_DTYPE)))
    return found


def _flat(states: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """`<transform>/<field>/<parameter>` -> values."""
    leaves = flatten({transform: state._asdict() for transform, state in states.items()})
    return {name: np.asarray(value) for name, value in leaves.items()}
