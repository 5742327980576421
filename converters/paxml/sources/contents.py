"""What a reader finds in a state, before any check, and how its leaves are opened."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from converters.arrays import Leaf, LeafSpec, Region
from converters.errors import ConversionError

REQUESTS = 32  # requests in flight if each goes over the network


@dataclass
class Contents:
    """Leaves of a state as they are on disk.

    Attributes:
        leaves: canonical path -> leaf; shapes still include padding.
        failed: paths of leaves that exist but could not be opened; `problems` says why.
        masked: paths of MaskedNode and None leaves, if the format records them.
        empty: paths of empty containers, if the format records them.
        problems: what is wrong, one line each.
        notes: what the user should know, one line each.
        naming: how leaves are named on disk: 'pax', 'dotted', 'positional' or 'treedef'.
    """

    leaves: dict[str, Leaf] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    masked: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    naming: str = "pax"


def open_all(contents: Contents, openers: Mapping[str, Callable[[], Leaf]], remote: bool) -> None:
    """Open each leaf into `contents`; failures become problems, all of them.

    Args:
        contents: receives leaves, failed and problems.
        openers: canonical path -> what opens that leaf.
        remote: whether each opener waits for the network.
    """

    def attempt(path: str) -> Leaf | str:
        try:
            return openers[path]()
        except ConversionError as error:
            return str(error)

    if remote:
        with ThreadPoolExecutor(REQUESTS) as pool:
            results = list(pool.map(attempt, openers))
    else:
        results = [attempt(path) for path in openers]
    for path, result in zip(openers, results, strict=True):
        if isinstance(result, str):
            contents.failed.add(path)
            contents.problems.append(result)
        else:
            contents.leaves[path] = result


def with_spec(leaf: Leaf, **changes: Any) -> Leaf:
    """The same leaf with another description (each kind of leaf is a dataclass)."""
    fields: Any = leaf
    return replace(fields, spec=replace(leaf.spec, **changes))


@dataclass(frozen=True)
class ValueLeaf:
    """A leaf whose value stands in the file's structure itself (a Python number).

    Attributes:
        spec: what it is.
        value: the value.
    """

    spec: LeafSpec
    value: np.ndarray

    @property
    def chunks(self) -> tuple[int, ...]:
        """One cell."""
        return ()

    def reader(self, limit: int) -> "ValueLeaf":
        """See `Leaf.reader`; the leaf is its own cursor."""
        del limit
        return self

    def read(self, region: Region = ()) -> np.ndarray:
        """See `Leaf.read` and `Reader.read`."""
        return self.value[region].copy() if region else self.value.copy()
