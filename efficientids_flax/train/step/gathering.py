"""Gather labels of several batches and measure them at once, in one pass over a large catalogue."""

import operator
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from efficientids_flax.core.labelled import LabelPositions
from efficientids_flax.train.step.objectives import Gathering

POSITIONS = 1 << 14  # most positions that wait
NUMBERS = 1 << 24  # largest size of an array that waits


class Gatherer:
    """The jitted functions of one objective."""

    def __init__(self, gathering: Gathering, counts: Callable[[Any], dict[str, jax.Array]]) -> None:
        """Prepare the functions; nothing is compiled yet.

        Args:
            gathering: that of the objective.
            counts: batch -> number of values out of range, by field.
        """
        self.times = gathering.times
        self.sums = jax.jit(gathering.sums)

        @jax.jit
        def positions(params: Any, batch: Any, times: jax.Array) -> Any:
            wrong = counts(batch)
            return gathering.positions(params, batch, times), wrong

        @partial(jax.jit, static_argnames="room", donate_argnums=0)
        def put(kept: Any, found: Any, number: int, room: int) -> Any:
            if kept is None:
                kept = _empty(found[0], room), jax.tree.map(jnp.zeros_like, found[1])

            def beside(kept: jax.Array, found: jax.Array) -> jax.Array:
                axis = _axis(found)
                start = number * (kept.shape[axis] // room)  # the found may be smaller
                return jax.lax.dynamic_update_slice_in_dim(kept, found, start, axis)

            return jax.tree.map(beside, kept[0], found[0]), jax.tree.map(jnp.add, kept[1], found[1])

        self.positions, self.put = positions, put


class Waiting:
    """Batches of one evaluation whose labels wait to be measured."""

    def __init__(self, gatherer: Gatherer, params: Any) -> None:
        """Start with nothing waiting.

        Args:
            gatherer: the jitted functions.
            params: the parameters to evaluate.
        """
        self._gatherer, self._params = gatherer, params
        self._kept: Any = None
        self._count = self._room = 0
        self._like: Any = None  # shapes of the first batch's arrays

    def times(self, batch: Any) -> np.ndarray | None:
        """The times of a batch's labels; None if it has so many that waiting gains nothing."""
        found = self._gatherer.times(batch)
        return found if found is not None and 4 * found.size <= POSITIONS else None

    def add(self, batch: Any, times: np.ndarray) -> Iterator[Any]:
        """Add the labels of a batch; yields (sums, wrong counts) once there are enough."""
        found = self._gatherer.positions(self._params, batch, times)
        if self._kept is None or not _fit(found, self._like):
            yield from self.rest()
            largest = max(x.size for x in jax.tree.leaves(found[0]))
            self._room = max(1, min(POSITIONS // times.size, NUMBERS // largest))
            self._like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), found)
        self._kept = self._gatherer.put(self._kept, found, self._count, room=self._room)
        self._count += 1
        if self._count == self._room:
            yield from self.rest()

    def rest(self) -> Iterator[Any]:
        """Yield (sums, wrong counts) of all that waits, if anything does."""
        if self._kept is not None:
            asked, counts = self._kept
            self._kept, self._count = None, 0
            yield self._gatherer.sums(self._params, asked), counts


def _shapes(tree: Any) -> list[Any]:
    return [(x.shape, x.dtype) for x in jax.tree.leaves(tree)]


def _fit(found: Any, like: Any) -> bool:
    """Whether a batch's arrays fit into the room of `like`; a last batch may have fewer rows."""
    if jax.tree.structure(found) != jax.tree.structure(like):
        return False
    pairs = zip(_shapes(found), _shapes(like), strict=True)
    return all(
        one == other and len(shape) == len(wanted) and all(map(operator.le, shape, wanted))
        for (shape, one), (wanted, other) in pairs
    )


def _empty(like: LabelPositions, room: int) -> LabelPositions:
    """Arrays with room for `room` such batches, without labels and excluding no item."""

    def joined(x: jax.Array) -> jax.Array:
        axis = _axis(x)
        return jnp.zeros((*x.shape[:axis], room * x.shape[axis], *x.shape[axis + 1 :]), x.dtype)

    made = jax.tree.map(joined, like)
    return made if made.exclude is None else made._replace(exclude=made.exclude - 1)


def _axis(found: jax.Array) -> int:
    """The axis along which batches are joined: that of positions, or the only one."""
    return min(1, found.ndim - 1)
