"""Checks a state against itself and against PAXml's metadata, before any array is read.

An array directory that is missing is simply not listed, and a wrong dtype of the same size decodes
without error. The format does not detect such faults; they only show where two descriptions of the
same thing differ.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from converters.arrays import LeafSpec
from converters.paxml.metadata import Variable
from converters.paxml.state import MAY_BE_UNUSED, StateLeaf, expected_shapes

FLOAT_FIELDS = {"m", "v", "vr", "vc", "m_scale", "ema", "trace", "mu", "nu"}
COUNTED = {"m", "ema", "mu"}  # fields of states that have a `count` too
ADAFACTOR = {"m", "m_scale", "vr", "vc", "v"}  # a `ShardedAdafactorState` has all of these
AGAIN = "Copy the checkpoint again."


def check_variables(
    specs: Mapping[str, LeafSpec], present: set[str], variables: Mapping[str, Variable] | None
) -> list[str]:
    """Compare the variables with the metadata; returns one line per problem.

    Args:
        specs: canonical path -> description as on disk, for the leaves that could be opened.
        present: paths of all leaves that exist.
        variables: the variables in the metadata; None if it lists none.
    """
    problems: list[str] = []
    found = {path for path in present if path.startswith("mdl_vars/")}
    if "step" not in present:
        problems.append(f"step: no such leaf, every TrainState has it. {AGAIN}")
    if not found:
        problems.append(f"mdl_vars: no variable at all. {AGAIN}")
    if variables is None:
        return problems
    for path, variable in variables.items():
        if path not in found and not variable.masked:
            problems.append(f"{path}: no array, though metadata/metadata lists it. {AGAIN}")
        if path in specs:
            problems += _check_variable(specs[path], variable)
    problems += [
        f"{path}: metadata/metadata does not list this array ({specs[path].location}); it may come "
        "from another checkpoint"
        for path in sorted(found - set(variables))
        if path in specs
    ]
    return problems


def check_states(
    states: Sequence[StateLeaf],
    specs: Mapping[str, LeafSpec],
    present: set[str],
    variables: Mapping[str, Variable] | None,
) -> list[str]:
    """Compare optimizer states with each other and with their variables; returns problem lines.

    Args:
        states: the leaves under `opt_states`, in order.
        specs, present, variables: as for `check_variables`, whose findings are not repeated.
    """
    problems: list[str] = []
    owners: dict[str, list[StateLeaf]] = defaultdict(list)
    for state in states:
        if state.path in specs:
            problems += _check_state(state, specs)
        if state.variable is not None:
            owners[state.variable].append(state)
    for variable, owned in owners.items():
        if variable not in (variables or {}):
            problems += _check_owner(variable, owned, specs, present)
    return problems + _check_fields(states, present) + _check_groups(states)


def unmoved(states: Iterable[StateLeaf], present: set[str]) -> list[str]:
    """Variables in `params` without any optimizer state; empty if no variable has a state."""
    moved = {state.variable for state in states if state.variable is not None}
    if not moved:
        return []
    return sorted(p for p in present if p.startswith("mdl_vars/params/") and p not in moved)


def _check_variable(spec: LeafSpec, variable: Variable) -> list[str]:
    problems: list[str] = []
    shape, stored = variable.shape, spec.stored_shape
    if shape is not None and (len(shape) != len(stored) or any(map(int.__gt__, shape, stored))):
        problems.append(
            f"{spec.path}: {spec.location} has shape {list(stored)}, metadata/metadata says "
            f"{list(shape)}"
        )
    if variable.dtype is not None and not _may_stand_for(spec.dtype, variable.dtype):
        problems.append(
            f"{spec.path}: {spec.location} has dtype {spec.dtype}, metadata/metadata says "
            f"{variable.dtype}; its values would be misread. {AGAIN}"
        )
    return problems


def _may_stand_for(stored: np.dtype, declared: np.dtype) -> bool:
    """Whether PAXml stores a variable of dtype `declared` as `stored`.

    A bfloat16 model trains in float32, and its jobs write float32: a floating dtype of another size
    is legal. Another dtype of the same size is damage that nothing else shows.
    """
    if stored == declared:
        return True
    return is_float(stored) and is_float(declared) and stored.itemsize != declared.itemsize


def _check_state(state: StateLeaf, specs: Mapping[str, LeafSpec]) -> list[str]:
    """Problems of one leaf: its shape compared with its variable's, its dtype with its field's."""
    spec = specs[state.path]
    stored = spec.stored_shape
    if state.variable is None:
        if state.field == "count" and (stored != state.prefix or spec.dtype.kind not in "iu"):
            return [
                f"{state.path}: {spec.location} has shape {list(stored)} {spec.dtype}, expected "
                f"{list(state.prefix)} int32"
            ]
        return []
    problems: list[str] = []
    quantized = state.field == "m" and spec.dtype.kind == "i" and spec.dtype.itemsize < 4
    if state.field in FLOAT_FIELDS and not (is_float(spec.dtype) or quantized):
        problems.append(
            f"{state.path}: {spec.location} has dtype {spec.dtype}, expected a floating dtype. "
            f"{AGAIN}"
        )
    if state.variable not in specs:
        return problems
    variable, rank = specs[state.variable].stored_shape, len(state.prefix)
    if variable[:rank] != state.prefix:
        problems.append(
            f"{state.path}: its group {state.group} holds variables of shape {list(state.prefix)} "
            f"+ ..., but {state.variable} has {list(variable)}"
        )
    fit = expected_shapes(state.field, variable, rank)
    if fit and stored not in fit and not _only_padded(stored, variable, state.field):
        some = " or ".join(str(list(shape)) for shape in fit)
        problems.append(
            f"{state.path}: {spec.location} has shape {list(stored)}, expected {some} as "
            f"{state.variable} has {list(variable)}"
        )
    return problems


def _check_owner(
    variable: str, owned: list[StateLeaf], specs: Mapping[str, LeafSpec], present: set[str]
) -> list[str]:
    """Problems of a variable that the metadata does not list but that has optimizer states."""
    if variable not in present:
        return [
            f"{variable}: no array, though {owned[0].path} is an optimizer state of it"
            f"{f' ({len(owned)} in all)' if len(owned) > 1 else ''}. {AGAIN}"
        ]
    spec = specs.get(variable)
    if spec is None or is_float(spec.dtype):
        return []
    return [
        f"{variable}: {spec.location} has dtype {spec.dtype}, but it has the optimizer state "
        f"{owned[0].path}: expected a floating dtype. {AGAIN}"
    ]


def _check_fields(states: Sequence[StateLeaf], present: set[str]) -> list[str]:
    """Problems of states whose fields cover different variables, or whose counts are missing."""
    covered: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for state in states:
        if state.variable is not None:
            covered[state.node][state.field].add(state.variable)
    problems: list[str] = []
    for node, fields in covered.items():
        every = set().union(*fields.values())
        for field, paths in fields.items():
            for path in sorted(every - paths):
                others = ", ".join(name for name, some in fields.items() if path in some)
                problems.append(
                    f"{node}/{field}/{path.removeprefix('mdl_vars/')}: no array, though {others} "
                    f"of the same state has one. {AGAIN}"
                )
        if COUNTED & set(fields) and f"{node}/count" not in present:
            problems.append(f"{node}/count: no array, though {node} has moments. {AGAIN}")
        if {"m_scale", "vr", "vc"} & set(fields) and not set(fields) >= ADAFACTOR:
            lost = ", ".join(sorted(ADAFACTOR - set(fields)))
            problems.append(
                f"{node}: no {lost}, which Adafactor has beside its other fields. {AGAIN}"
            )
    return problems


def _check_groups(states: Sequence[StateLeaf]) -> list[str]:
    """Counts that some groups of a learner have and other groups lack."""
    counts: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for state in states:
        learner = state.group.rpartition("/")[0]
        if learner != "opt_states":
            places = counts[learner][state.group]
            if state.variable is None:
                places.add(state.path.removeprefix(state.group))
    problems: list[str] = []
    for learner, groups in counts.items():
        every = set().union(*groups.values())
        problems += [
            f"{group}{place}: no array, though another group of {learner} has one. {AGAIN}"
            for group, places in groups.items()
            for place in sorted(every - places)
        ]
    return problems


def _only_padded(stored: tuple[int, ...], variable: tuple[int, ...], field: str) -> bool:
    """Whether a moment may have its variable's shape, padded with another partition spec."""
    return field not in MAY_BE_UNUSED and len(stored) == len(variable)


def is_float(dtype: np.dtype) -> bool:
    """Whether a dtype is floating, including those of `ml_dtypes` (whose kind in NumPy is 'V')."""
    return dtype.kind == "f" or (dtype.kind == "V" and "float" in dtype.name)
