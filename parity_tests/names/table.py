"""Name tables: data that says which of our values a recorded one corresponds to.

A recorded name is a pattern. If the origin stacks layers, a table's `LayerForm` says how to unstack
them. Letters of axes: B batch, T time (queries), S keys, D model width, N heads, J key and value
heads, H head width, C one of query, key and value, F hidden width, V words, I items, M slots, A
ranks, W query width, E item width, X experts, G groups, U tokens of a group, P places of an expert,
L distances.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from efficientids_flax.config import BackboneConfig, EfficientIDSConfig

ModelConfig = BackboneConfig | EfficientIDSConfig


@dataclass(frozen=True)
class Name:
    """One line of a table.

    Attributes:
        recorded: pattern of the recorded name; `{n}` stands for a number, `*` for anything.
        ours: path of our value: an intermediate value (relative to the layer for rows in `layers`;
            `{last}` is the number of the last layer), `outputs/...` or `metrics/...`; '*' for the
            recorded name.
        axes: letters of the recorded array's axes; `*` if unknown.
        op: key of `operations.OPERATIONS`: the operation that is applied first.
        when: words of `CONDITIONS`; the row only applies if all of them hold.
        kind: kind of value, which determines the tolerance.
    """

    recorded: str
    ours: str
    axes: str
    op: str = ""
    when: str = ""
    kind: str = "activations"

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Matches recorded names."""
        return _pattern(self.recorded)

    def holds(self, backbone: BackboneConfig) -> bool:
        """Whether the row applies to this decoder, or to this layer of it."""
        return all(CONDITIONS[word](backbone) for word in self.when.split())


@dataclass(frozen=True)
class Ignored:
    """Recorded values that are not compared, and why."""

    recorded: str
    reason: str

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Matches recorded names."""
        return _pattern(self.recorded)


@dataclass(frozen=True)
class LayerForm:
    """How the origin stores its layers.

    Attributes:
        prefix: regular expression of what precedes the names within a layer. Its group `place` is
            the layer's number, or its place in a block or stage; without the group, it is the last
            place.
        split: (values, place, number of places) -> (layer, its values) for each layer.
    """

    prefix: str
    split: Callable[[np.ndarray, int, int], Iterator[tuple[int, np.ndarray]]]

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Matches the names of a layer: groups `place` and `rest`."""
        return re.compile(rf"{self.prefix}(?:/(?P<rest>.*))?")


@dataclass(frozen=True)
class NameTable:
    """The names of one origin, in the order of computation.

    Attributes:
        forms: how layers are stored.
        inputs: rows before the layers.
        layers: rows of a layer; `recorded` is relative to the layer.
        outputs: rows after the layers.
        ignored: values that are not compared.
    """

    forms: Sequence[LayerForm]
    inputs: Sequence[Name]
    layers: Sequence[Name]
    outputs: Sequence[Name]
    ignored: Sequence[Ignored] = ()


CONDITIONS: dict[str, Callable[[BackboneConfig], bool]] = {
    "gated": lambda c: c.gated_mlp,
    "plain": lambda c: not c.gated_mlp,
    "heads": lambda c: not c.multi_query,
    "mqa": lambda c: c.multi_query,
    "pre": lambda c: c.norm_policy in ("pre", "post_skip"),
    "post": lambda c: c.norm_policy == "post",
    "hybrid": lambda c: c.norm_policy == "primer_hybrid",
    "beside": lambda c: c.parallel_residual,
}


def unstacked(values: np.ndarray, place: int, count: int) -> Iterator[tuple[int, np.ndarray]]:
    """A layer that is stored separately."""
    del count
    yield place, values


def repeated(values: np.ndarray, place: int, count: int) -> Iterator[tuple[int, np.ndarray]]:
    """Layers of blocks with `count` layers each, stacked on the first axis."""
    for block, one in enumerate(values):
        yield block * count + place, one


def pipelined(values: np.ndarray, place: int, count: int) -> Iterator[tuple[int, np.ndarray]]:
    """Layers of a pipeline: [iterations, stages, ...], with `count` layers per stage.

    Stage s processes microbatch m in iteration m + s (praxis/layers/pipeline.py). Microbatch m of M
    consists of rows m, m + M, ... of the batch. The other iterations fill and drain the pipeline.
    """
    iterations, stages = values.shape[:2]
    microbatches = iterations - stages + 1
    for stage in range(stages):
        own = np.stack([values[batch + stage, stage] for batch in range(microbatches)], axis=1)
        yield stage * count + place, own.reshape(-1, *own.shape[2:])


def _pattern(recorded: str) -> re.Pattern[str]:
    return re.compile(re.escape(recorded).replace(r"\{n\}", r"\d+").replace(r"\*", ".*"))
