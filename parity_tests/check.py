"""Compares a converted model with a recording: every value, in the order of computation."""

import fnmatch
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from efficientids_flax.config import EfficientIDSConfig, TimesFMConfig
from efficientids_flax.parameters import ModelConfig as AnyConfig
from parity_tests.compare import (
    EXACT_DTYPE,
    HALF_DTYPES,
    NOISE,
    OPERATIONS,
    ROUNDING,
    Context,
    Difference,
    Wanted,
    aligned,
    distance,
    half_distance,
    judged,
    rows_of,
    tolerance,
    wanted,
)
from parity_tests.names import TABLES
from parity_tests.names.table import ModelConfig
from parity_tests.recording import INPUTS, Arrays, Pass, Recording, RecordingError, form
from parity_tests.run import (
    EMBEDS,
    TEXT,
    Found,
    Subject,
    Trained,
    belonging,
    flow_order,
    layer_of,
    run,
    sees_all,
    to_our_tree,
)
from parity_tests.steps import cannot, check_steps


def check(
    subject: Subject,
    recording: Recording,
    trained: Trained | None = None,
    only: str | None = None,
) -> list[Difference]:
    """Compare everything that was recorded.

    Args:
        subject: the converted model.
        recording: the recording to compare with.
        trained: optimizer and its state, for optimizer steps; None: these are left out.
        only: pattern of names (`*` for anything) to compare; None for all.

    Returns:
        One entry per recorded value. A value that is not compared has an entry with the reason.

    Raises:
        RecordingError: the recording is of another kind of model, or its parameters do not fit.
    """
    check_kind(subject.config, recording)
    found: list[Difference] = []
    # A pass on a batch like that of the steps runs their program.
    taken = trained is not None and cannot(recording, trained) is None
    stepped = {form(step.run) for step in recording.steps if taken}
    # Passes with intermediate values first, because they show where a difference begins.
    for one in sorted(recording.passes, key=lambda one: not one.activations):
        own = belonging(subject, recording, one)
        found += check_pass(own, recording, one, gradients=form(one) in stepped)
    if trained is not None and recording.steps:
        found += check_steps(subject.in_dtype(recording.dtype), recording, trained)
    if only is not None:
        found = [item for item in found if fnmatch.fnmatch(item.name, only)]
    return found


def check_pass(
    subject: Subject, recording: Recording, one: Pass, *, gradients: bool = False
) -> list[Difference]:
    """Compare one pass, in its dtype; the parameters are those of `subject`.

    With `gradients` the program computes them even if none are recorded.
    """
    dtype = one.dtype
    half = dtype in HALF_DTYPES
    gradients = gradients or bool(one.gradients)
    ours = run(subject.in_dtype(dtype), one, gradients=gradients)
    exact = run(subject.in_dtype(EXACT_DTYPE), one, gradients=gradients) if half else None
    table = TABLES[recording.names]
    found = _unread(one)
    for item in wanted(one, table, subject.backbone, ours.values):
        found.append(compared(item, subject, recording, one, ours, exact))
    return found + _gradients(subject, recording, one, ours, exact, dtype)


def _unread(one: Pass) -> list[Difference]:
    """Entries for fields of the batch that our models do not read; they can have no effect here."""
    return [
        Difference(one.name, f"inputs/{name}", "", "inputs", "ignored", np.shape(value),
                   note="no model here reads such a field")
        for name, value in one.inputs.items()
        if name not in INPUTS
    ]  # fmt: skip


def compared(
    item: Wanted,
    subject: Subject,
    recording: Recording,
    one: Pass,
    ours: Found,
    exact: Found | None = None,
) -> Difference:
    """Compare one recorded value with ours.

    Args:
        item: the value, with its row of the name table.
        subject, recording, one: the model, the recording and the pass that it belongs to.
        ours: values of our run.
        exact: values of our run in float32, if the pass is in half precision.
    """
    base = Difference(
        one.name, item.name, item.ours, item.row.kind if item.row else "activations", "ok",
        item.values.shape, item.layer,
    )  # fmt: skip
    if item.ignored is not None:
        return replace(base, verdict="ignored", note=item.ignored)
    if item.row is None:
        note = f"table '{recording.names}' does not have this name (parity_tests/names/)"
        return replace(base, verdict="UNKNOWN", note=note)
    if item.ours == f"outputs/{TEXT}" and sees_all(subject):
        return replace(base, verdict="ignored", note="tokens see later ones: no text is made")
    if item.ours not in ours.values:
        return replace(base, verdict="MISSING", note="our model does not compute it")
    got = meant_pair(item, subject, ours.values)
    if got is None:
        note = f"ours is {list(ours.values[item.ours].shape)}"
        return replace(base, verdict="SHAPE", note=note)
    mine, recorded = got
    rows = rows_of(item.row.axes, recorded.shape, one)
    if rows is not None and not rows.any():
        return replace(base, verdict="ignored", note="all of it is padding")
    if exact is not None:
        own = item if item.exact is None else replace(item, values=item.exact)
        other = meant_pair(own, subject, exact.values)
        reference = None if other is None else other[0 if item.exact is None else 1]
        if reference is not None:
            found, allowed = half_distance(mine, recorded, reference, rows)
            if item.row.kind == "loss" or item.row.axes == "B":
                allowed = max(allowed, ROUNDING)  # here errors may cancel by chance
            return judged(base, found, allowed)
    return judged(
        base, distance(mine, recorded, rows), tolerance(base.kind, one.dtype, recording.tolerances)
    )


def meant_pair(
    item: Wanted, subject: Subject, values: Arrays
) -> tuple[np.ndarray, np.ndarray] | None:
    """(ours, recorded) after the row's operation, in one shape; None if the shapes do not fit."""
    assert item.row is not None
    layer, config = "", subject.backbone
    if item.layer is not None:
        layer, config = f"layers_{item.layer}/", config.of_layer(item.layer)
    context = Context(values, config, layer)
    mine, recorded = OPERATIONS[item.row.op](values[item.ours], item.values, context)
    fitted = aligned(mine, recorded)
    return None if fitted is None else (fitted, recorded)


def _gradients(
    subject: Subject,
    recording: Recording,
    one: Pass,
    ours: Found,
    exact: Found | None,
    dtype: str,
) -> list[Difference]:
    """Compare every recorded gradient, in the order of the parameters."""
    if not one.gradients:
        return []
    own = {name: value for name, value in one.gradients.items() if name != EMBEDS}
    translated = to_our_tree(own, recording.names, subject) if own else {}
    translated |= {EMBEDS: (one.gradients[EMBEDS], (EMBEDS,))} if EMBEDS in one.gradients else {}
    references: Mapping[str, np.ndarray] = exact.gradients if exact is not None else {}
    if one.exact is not None and one.exact.gradients:
        given = to_our_tree(one.exact.gradients, recording.names, subject)
        references = {path: value for path, (value, _) in given.items()}
    largest = max(
        (float(np.max(np.abs(v), initial=0.0)) for v, _ in translated.values()), default=0
    )
    found = []
    for path in sorted(translated, key=flow_order):
        recorded, names = translated[path]
        base = Difference(one.name, "gradients/" + "+".join(names), path, "gradients", "ok",
                          recorded.shape, layer_of(path))  # fmt: skip
        if path not in ours.gradients:
            found.append(replace(base, verdict="MISSING", note="our model has no such parameter"))
            continue
        mine = aligned(ours.gradients[path], recorded)
        if mine is None:
            note = f"ours is {list(ours.gradients[path].shape)}"
            found.append(replace(base, verdict="SHAPE", note=note))
            continue
        rows = rows_of("BTD", recorded.shape, one) if path == EMBEDS else None
        if path in references:
            gap, allowed = half_distance(mine, recorded, references[path], rows, guard=False)
        else:
            gap = distance(mine, recorded, rows)
            allowed = tolerance("gradients", dtype, recording.tolerances)
        noise = NOISE * largest
        if max(_largest(recorded), _largest(mine)) < noise:
            base = replace(base, note="zero up to rounding in both")
            gap = replace(gap, relative=0.0, note="")
        found.append(judged(base, gap, allowed))
    return found


def _largest(values: np.ndarray) -> float:
    return float(np.max(np.abs(values), initial=0.0))


def check_kind(config: AnyConfig, recording: Recording) -> ModelConfig:
    """Return the configuration if the recording is of the same kind of model.

    Raises:
        RecordingError: the recording is of another kind of model, or its names are unknown.
    """
    if isinstance(config, TimesFMConfig):
        raise RecordingError(
            f"{recording.path}: recorded of a {recording.model}, the checkpoint is a forecaster"
        )
    kind = "recommender" if isinstance(config, EfficientIDSConfig) else "language_model"
    if recording.model != kind:
        raise RecordingError(
            f"{recording.path}: recorded of a {recording.model}, the checkpoint is a {kind}"
        )
    if recording.names not in TABLES:
        known = ", ".join(TABLES)
        raise RecordingError(
            f"{recording.path}: names: no table '{recording.names}'; known are {known}"
        )
    return config
