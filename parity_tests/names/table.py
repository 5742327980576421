"""Name tables: which of our values a recorded one is, as data.

A recorded name is a pattern; where the origin stacks layers, a table's `LayerForm` says how to take
them apart. Letters of axes: B batch, T time (queries), S keys, D model width, N heads, J heads of
keys and values, H head width, C one of query, key and value, F hidden width, V words, I items, M
slots, A ranks, W query width, E item width, X experts, G groups, U tokens of a group, P places of
an expert, L distances.
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
        recorded: pattern of the recorded name: `{n}` stands for a number, `*` for anything.
        ours: path of our value: an intermediate (relative to the layer in `layers`; `{last}` is the
            number of the last layer), `outputs/...` or `metrics/...`; '*' for the same name.
        axes: letters of the recorded array's axes; `*` for unknown ones.
        op: key of `operations.OPERATIONS`, what is done to ours first.
        when: words of `CONDITIONS` under which the line holds.
        kind: what decides the tolerance.
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
        """Whether the line is one for this decoder, or for this layer of it."""
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
    """How the origin lays out its layers.

    Attributes:
        prefix: regular expression of what comes before a layer's own names, with a group `place`:
            the layer's number, or its place in a block or stage; without one, it is the last.
        split: (values, place, how many places) -> (layer, its values) for each layer.
    """

    prefix: str
    split: Callable[[np.ndarray, int, int], Iterator[tuple[int, np.ndarray]]]

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Matches the names of a layer: groups `place` and `rest`."""
        return re.compile(rf"{self.prefix}(?:/(?P<rest>.*))?")


@dataclass(frozen=True)
class NameTable:
    """The names of one origin, in the order of the data flow.

    Attributes:
        forms: layouts of layers.
        inputs: lines before the layers.
        layers: lines of a layer; their `recorded` is relative to it.
        outputs: lines after the layers.
        ignored: what is left out.
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
    """Layers one by one."""
    del count
    yield place, values


def repeated(values: np.ndarray, place: int, count: int) -> Iterator[tuple[int, np.ndarray]]:
    """Blocks of `count` layers, stacked on the first axis."""
    for block, one in enumerate(values):
        yield block * count + place, one


def pipelined(values: np.ndarray, place: int, count: int) -> Iterator[tuple[int, np.ndarray]]:
    """[iterations, stages, ...] of stages of `count` layers, on strided microbatches.

    Stage s works on microbatch m in iteration m + s (praxis/layers/pipeline.py); rows m, m + M, ...
    of the batch are microbatch m of M. The other iterations fill and drain the pipeline.
    """
    iterations, stages = values.shape[:2]
    microbatches = iterations - stages + 1
    for stage in range(stages):
        own = np.stack([values[batch + stage, stage] for batch in range(microbatches)], axis=1)
        yield stage * count + place, own.reshape(-1, *own.shape[2:])


def _pattern(recorded: str) -> re.Pattern[str]:
    return re.compile(re.escape(recorded).replace(r"\{n\}", r"\d+").replace(r"\*", ".*"))
