"""A plan: what a conversion will do, leaf by leaf. `--dry-run` prints it, else it is executed."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from converters.arrays import Array
from converters.errors import MappingError
from converters.rules import Mapped


@dataclass(frozen=True)
class PlannedLeaf:
    """One leaf of the output.

    Attributes:
        target: path in the output; its first component is the item (`params` or `state`).
        array: the values, computed lazily.
        operation: what is done to the sources, in words; 'rename' if nothing is.
    """

    target: str
    array: Array
    operation: str

    @property
    def sources(self) -> tuple[str, ...]:
        """Paths of the source leaves that it is computed from."""
        return tuple(leaf.spec.path for leaf in self.array.leaves())

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the result."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the result."""
        return self.array.dtype

    @property
    def nbytes(self) -> int:
        """Size of the result in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def row(self) -> dict[str, Any]:
        """The leaf as a line of the printed plan and of the manifest."""
        return {
            "target": self.target,
            "sources": list(self.sources),
            "operation": self.operation,
            "shape": list(self.shape),
            "dtype": self.dtype.name,
        }


@dataclass(frozen=True)
class Plan:
    """Everything that a conversion will do.

    Attributes:
        source: what is converted: a path or URL that the user can find again.
        step: the training step of the checkpoint.
        layout: how the source is laid out, in words.
        family: name of the rule table that was used.
        leaves: the output leaves, in order.
        ignored: (source path, reason) of the leaves that are left out.
        config: content of `config.json`.
        provenance: the origin of each value of the configuration.
        rules: the rules that were used, one per line.
        notes: what the user should know.
        assumed: 'forward', 'training' and 'optimizer' -> key -> value of settings that no source
            gives and that can change the model's numbers or the optimizer's next step.
    """

    source: str
    step: int | None
    layout: str
    family: str
    leaves: tuple[PlannedLeaf, ...]
    ignored: tuple[tuple[str, str], ...]
    config: dict[str, Any]
    provenance: dict[str, Any]
    rules: tuple[str, ...]
    notes: tuple[str, ...]
    assumed: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise `MappingError` if two leaves would have the same place in the output."""
        places: dict[str, str] = {}
        problems: list[str] = []
        for leaf in self.leaves:
            place = leaf.target.replace("/", ".")  # Orbax joins names with dots
            if place in places:
                problems.append(f"{leaf.target}: lies where {places[place]} does")
            places[place] = leaf.target
        if problems:
            raise MappingError("\n  ".join(["the output cannot tell leaves apart:", *problems]))

    @property
    def nbytes(self) -> int:
        """Size of the output's values in bytes, before compression."""
        return sum(leaf.nbytes for leaf in self.leaves)

    def fingerprint(self, limit: int) -> str:
        """Digest of everything that affects what is written; `--resume` compares it."""
        rows = [
            [*leaf.row().values(), list(leaf.array.tiles(limit)), _stored(leaf)]
            for leaf in self.leaves
        ]
        text = json.dumps([self.source, self.step, self.config, rows], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def planned(mapped: Sequence[Mapped], prefix: str = "") -> list[PlannedLeaf]:
    """Plan lines for the leaves that a table made, with `prefix` before each target."""
    return [
        PlannedLeaf(prefix + leaf.target, leaf.array, leaf.rule.op or "rename") for leaf in mapped
    ]


def _stored(leaf: PlannedLeaf) -> list[Any]:
    return [
        [s.spec.location, list(s.spec.stored_shape), list(s.chunks)] for s in leaf.array.leaves()
    ]
