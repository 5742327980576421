"""Finds the variable that an optimizer state belongs to, and the state's shape without padding.

PAXml pads every leaf to its mesh with the leaf's own partition spec
(`py_utils.maybe_pad_uneven_sharding`), but only records the unpadded shapes of variables. Moments
have their variable's shape; Adafactor's factored slots lack one of its axes
(`praxis.optimizers._ShardedAdafactorHelper.init`). In a group of stacked layers, this applies to
the axes after the stacked ones.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from converters.paxml.names import group_shape

# Fields with the shape of their variable (Praxis Adam, Lion, EMA, accumulation; Optax).
LIKE_VARIABLE = {"m", "v", "ema", "trace", "mu", "nu", "accumulated_update", "pretrain_vars"}
# Fields of ShardedAdafactorState; a slot that is not in use has shape [1].
MAY_BE_UNUSED = {"m", "m_scale", "vr", "vc", "v"}

FACTORINGS = ("last", "largest")  # ways in which ShardedAdafactor may choose the axes to factor

Shape = tuple[int, ...]


@dataclass(frozen=True)
class StateLeaf:
    """A leaf of an optimizer state, with the parts of its path.

    Attributes:
        path: canonical path.
        node: path of the state that it is a field of, `opt_states/0/no_prefix/2`.
        field: `m`, `v`, `count`, ...
        variable: path of its variable (`mdl_vars/...`); None for counts and the like.
        prefix: sizes of its group's stacked axes; () if there are none.
        group: path of its group, `opt_states/0/no_prefix`, or of its learner without groups.
    """

    path: str
    node: str
    field: str
    variable: str | None
    prefix: Shape
    group: str


def take_apart(path: str, collections: Collection[str]) -> StateLeaf:
    """Split `path`, which is under `opt_states`, into its parts.

    Args:
        path: canonical path.
        collections: first keys under `mdl_vars`; the variable starts after the first of them in
            `path`.
    """
    keys = path.split("/")
    end = next((i for i, key in enumerate(keys) if key in collections), len(keys))
    prefix = group_shape(keys[2]) if len(keys) > 2 else None
    return StateLeaf(
        path,
        "/".join(keys[: end - 1]),
        keys[end - 1],
        "/".join(["mdl_vars", *keys[end:]]) if end < len(keys) else None,
        prefix or (),
        "/".join(keys[: 2 if prefix is None else 3]),
    )


def expected_shapes(field: str, variable: Shape, rank: int) -> dict[Shape, tuple[int | None, ...]]:
    """Stored shapes that a field may have for a variable, each with the variable's axes it keeps.

    Args:
        field: name of the field.
        variable: stored shape of the variable.
        rank: number of its stacked axes.

    Returns:
        Shape -> for each of its axes, the corresponding axis of the variable; None for the axis of
        an unused slot. Empty if the field is unknown. `vr` and `vc` may have several entries.
    """
    every = tuple(range(len(variable)))
    found: dict[Shape, tuple[int | None, ...]] = {}
    if field in MAY_BE_UNUSED:
        found[(*variable[:rank], 1)] = (*every[:rank], None)
    if field in LIKE_VARIABLE:
        found[variable] = every
    if field == "m_scale" and len(variable) > rank:  # one scale per column of axis 0
        found[_without(variable, rank)] = _without(every, rank)
    if field in ("vr", "vc"):
        for axis in every[rank:]:
            found.setdefault(_without(variable, axis), _without(every, axis))
    return found


def factorings(states: Iterable[tuple[str, Shape, Shape, Shape, int]]) -> frozenset[str]:
    """The ways of choosing axes that fit all `vr` and `vc` of an optimizer.

    Praxis factors the last two axes, or with `sort_factored_second_moment_dims` the two largest (of
    the shape without padding), if they are large enough. Nothing on disk says which.

    Args:
        states: arguments of `unpadded_shape` for each state.
    """
    possible = set(FACTORINGS)
    for field, stored, variable, unpadded, rank in states:
        if field in ("vr", "vc") and len(variable) >= rank + 2:
            unused = stored == (*variable[:rank], 1)
            for name in FACTORINGS:
                fits = _without(variable, _factored_axis(name, field, unpadded, rank)) == stored
                if not (fits or (unused and name == "largest")):
                    possible.discard(name)
    return frozenset(possible or FACTORINGS)


def unpadded_shape(
    field: str,
    stored: Shape,
    variable: Shape,
    unpadded: Shape,
    rank: int,
    possible: Collection[str] = FACTORINGS,
) -> Shape | None:
    """Shape of an optimizer state's field without padding; None if it cannot be determined.

    Args:
        field: name of the field.
        stored: its shape on disk.
        variable: shape of its variable on disk.
        unpadded: shape of its variable without padding.
        rank: number of stacked axes.
        possible: result of `factorings`.
    """
    if variable == unpadded:
        return stored
    if field in ("vr", "vc"):
        return _unpadded_factor(field, stored, variable, unpadded, rank, possible)
    axes = expected_shapes(field, variable, rank).get(stored)
    if axes is not None:
        return tuple(1 if axis is None else unpadded[axis] for axis in axes)
    larger = len(stored) == len(unpadded) and all(map(int.__ge__, stored, unpadded))
    if field in LIKE_VARIABLE and larger:  # padded with another partition spec than its variable
        return unpadded
    # One scalar per variable, or a field of an unknown state whose axes cannot be padded.
    return stored if len(stored) <= rank or variable[:rank] + stored == variable[:rank] else None


def _unpadded_factor(
    field: str,
    stored: Shape,
    variable: Shape,
    unpadded: Shape,
    rank: int,
    possible: Collection[str],
) -> Shape | None:
    """Unpadded shape of `vr` or `vc`, which lack the row or the column axis.

    None if several choices of axes fit and give different shapes.
    """
    if stored == (*variable[:rank], 1) and len(variable) != rank + 2:
        return (*unpadded[:rank], 1)
    inner = len(variable) - rank
    if inner < 2:
        return (*unpadded[:rank], 1) if stored == (*variable[:rank], 1) else None
    axes = {_factored_axis(name, field, unpadded, rank) for name in possible}
    candidates = {_without(unpadded, axis) for axis in axes if _without(variable, axis) == stored}
    if stored == (*variable[:rank], 1):
        candidates.add((*unpadded[:rank], 1))
    return candidates.pop() if len(candidates) == 1 else None


def _factored_axis(factoring: str, field: str, unpadded: Shape, rank: int) -> int:
    """The axis that `vr` or `vc` lacks, for one way of choosing the axes."""
    place = 0 if field == "vr" else 1
    if factoring == "last":
        return len(unpadded) - 1 - place
    return sorted(range(rank, len(unpadded)), key=lambda axis: -unpadded[axis])[place]


def _without(items: tuple, axis: int) -> tuple:
    return items[:axis] + items[axis + 1 :]
