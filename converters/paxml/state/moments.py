"""Which variable an optimizer state belongs to, and the shape it has without padding.

PAXml pads every leaf to its mesh by its own partition spec (`py_utils.maybe_pad_uneven_sharding`),
but records shapes of variables only. Moments have their variable's shape; Adafactor's factored
slots lack an axis of it (`praxis.optimizers._ShardedAdafactorHelper.init`). Inside a group of
stacked layers all of this holds below the stacked axes.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from converters.paxml.names import group_shape

# Fields whose arrays have their variable's shape (Praxis Adam, Lion, EMA, accumulation; Optax).
LIKE_VARIABLE = {"m", "v", "ema", "trace", "mu", "nu", "accumulated_update", "pretrain_vars"}
# Fields of ShardedAdafactorState, for which a slot that is not in use has shape [1].
MAY_BE_UNUSED = {"m", "m_scale", "vr", "vc", "v"}

FACTORINGS = ("last", "largest")  # axes by which ShardedAdafactor may factor

Shape = tuple[int, ...]


@dataclass(frozen=True)
class StateLeaf:
    """A leaf of an optimizer state, taken apart.

    Attributes:
        path: canonical path.
        node: path of the state that it is a field of, `opt_states/0/no_prefix/2`.
        field: `m`, `v`, `count`, ...
        variable: path of its variable (`mdl_vars/...`), None for counts and the like.
        prefix: stacked axes of its group; () if there are none.
        group: path of its group, `opt_states/0/no_prefix`, or of its learner if there are no
            groups.
    """

    path: str
    node: str
    field: str
    variable: str | None
    prefix: Shape
    group: str


def take_apart(path: str, collections: Collection[str]) -> StateLeaf:
    """`path`, which lies under `opt_states`, in its parts.

    Args:
        path: canonical path.
        collections: first keys under `mdl_vars`; the first of them in the path starts the variable.
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
    """Stored shapes that a field may have for a variable, each with the axes that are left of it.

    Args:
        field: name of the field.
        variable: stored shape of the variable.
        rank: number of its stacked axes.

    Returns:
        Shape -> for each axis the variable's axis that it is, None for an axis of an unused slot.
        Empty if nothing is known of the field. `vr` and `vc` may have more than one entry.
    """
    every = tuple(range(len(variable)))
    found: dict[Shape, tuple[int | None, ...]] = {}
    if field in MAY_BE_UNUSED:
        found[(*variable[:rank], 1)] = (*every[:rank], None)
    if field in LIKE_VARIABLE:
        found[variable] = every
    if field == "m_scale" and len(variable) > rank:  # one scale for each column of axis 0
        found[_without(variable, rank)] = _without(every, rank)
    if field in ("vr", "vc"):
        for axis in every[rank:]:
            found.setdefault(_without(variable, axis), _without(every, axis))
    return found


def factorings(states: Iterable[tuple[str, Shape, Shape, Shape, int]]) -> frozenset[str]:
    """Which axes an optimizer may factor by, as far as all of its `vr` and `vc` allow it.

    Praxis takes the last two axes, or with `sort_factored_second_moment_dims` the two largest (of
    the shape without padding), if they are large enough; nothing on disk says which.

    Args:
        states: arguments of `unpadded_shape` for each of its states.
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
    """Shape without padding of a field of an optimizer state; None if it cannot be told.

    Args:
        field: name of the field.
        stored: its shape on disk.
        variable: shape of its variable on disk.
        unpadded: shape of its variable without padding.
        rank: number of stacked axes.
        possible: of `factorings`.
    """
    if variable == unpadded:
        return stored
    if field in ("vr", "vc"):
        return _unpadded_factor(field, stored, variable, unpadded, rank, possible)
    axes = expected_shapes(field, variable, rank).get(stored)
    if axes is not None:
        return tuple(1 if axis is None else unpadded[axis] for axis in axes)
    larger = len(stored) == len(unpadded) and all(map(int.__ge__, stored, unpadded))
    if field in LIKE_VARIABLE and larger:  # padded by another partition spec than its variable
        return unpadded
    # A scalar for each variable, or a field of an unknown state that no padded axis can be in.
    return stored if len(stored) <= rank or variable[:rank] + stored == variable[:rank] else None


def _unpadded_factor(
    field: str,
    stored: Shape,
    variable: Shape,
    unpadded: Shape,
    rank: int,
    possible: Collection[str],
) -> Shape | None:
    """Shape of `vr` or `vc`, which lacks the row or the column axis.

    Where both of the possible choices of axes fit and differ, None.
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
    """The axis that `vr` or `vc` lacks."""
    place = 0 if field == "vr" else 1
    if factoring == "last":
        return len(unpadded) - 1 - place
    return sorted(range(rank, len(unpadded)), key=lambda axis: -unpadded[axis])[place]


def _without(items: tuple, axis: int) -> tuple:
    return items[:axis] + items[axis + 1 :]
