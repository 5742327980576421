"""Split the item table and its moments off a state, join them again, or change their layout.

Letters: E width of the table, I items.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from jax.core import Tracer

from efficientids_flax.train.state.carried import TrainState
from efficientids_flax.tree import flatten, unflatten

TABLE = "item_embedding/kernel"


class Tables(NamedTuple):
    """The arrays that have a row for each item.

    Attributes:
        table: [E, I], as in checkpoints, or in another layout.
        moments: the optimizer's moments, of the same shape, in the order of its state.
    """

    table: jax.Array
    moments: tuple[jax.Array, ...]


class Split(NamedTuple):
    """Table and moments, and where they were in the state.

    Attributes:
        tables: the arrays.
        tree: the optimizer state, with trees like the parameters as leaves.
        holds: of these leaves, which have the table.
    """

    tables: Tables
    tree: Any
    holds: tuple[bool, ...]

    def state_of(self, state: TrainState, moments: tuple[jax.Array, ...]) -> Any:
        """The optimizer state of the table alone, with these moments."""
        left = iter(moments)
        leaves = self.tree.flatten_up_to(state.opt_state)
        return self.tree.unflatten([
            unflatten({TABLE: next(left)}) if held else leaf
            for leaf, held in zip(leaves, self.holds, strict=True)
        ])  # fmt: skip

    def moments_of(self, opt_state: Any) -> tuple[jax.Array, ...]:
        """The moments in an optimizer state of all parameters or of the table."""
        leaves = self.tree.flatten_up_to(opt_state)
        pairs = zip(leaves, self.holds, strict=True)
        return tuple(flatten(leaf)[TABLE] for leaf, held in pairs if held)

    def joined(self, state: TrainState, tables: Tables) -> TrainState:
        """The state with table and moments put back."""
        left = iter(tables.moments)
        leaves = [
            unflatten({**flatten(leaf), TABLE: next(left)}) if held else leaf
            for leaf, held in zip(self.tree.flatten_up_to(state.opt_state), self.holds, strict=True)
        ]
        return state.replace(  # pyright: ignore[reportAttributeAccessIssue]
            trained=unflatten({**flatten(state.trained), TABLE: tables.table}),
            opt_state=self.tree.unflatten(leaves),
        )


def _has_table(node: Any) -> bool:
    return isinstance(node, Mapping) and TABLE in flatten(node)


def split_table(state: TrainState) -> tuple[TrainState, Split]:
    """(The state without the table, what was taken out)."""
    leaves, tree = jax.tree.flatten(state.opt_state, is_leaf=_has_table)
    holds = tuple(map(_has_table, leaves))
    trained = flatten(state.trained)
    tables = Tables(
        trained.pop(TABLE),
        tuple(flatten(leaf)[TABLE] for leaf, held in zip(leaves, holds, strict=True) if held),
    )
    rest = [
        _without(leaf) if held else leaf for leaf, held in zip(leaves, holds, strict=True)
    ]  # fmt: skip
    small = state.replace(trained=unflatten(trained), opt_state=tree.unflatten(rest))  # pyright: ignore[reportAttributeAccessIssue]
    return small, Split(tables, tree, holds)


def _without(tree: Mapping[str, Any]) -> dict[str, Any]:
    return unflatten({path: leaf for path, leaf in flatten(tree).items() if path != TABLE})


def laid_out(state: TrainState, how: Callable[[Any], jax.Array], *, gone: bool) -> TrainState:
    """Convert table and moments of a state to another layout.

    Args:
        state: state with table and moments.
        how: jitted conversion of one array.
        gone: whether to delete each old array as soon as it is converted.
    """
    small, split = split_table(state)

    def turn(x: Any) -> Any:
        found = how(x)
        if gone and isinstance(x, jax.Array) and not isinstance(x, Tracer):
            jax.block_until_ready(found)
            x.delete()
        return found

    return split.joined(small, jax.tree.map(turn, split.tables))
