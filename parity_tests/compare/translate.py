"""Translates recorded names to ours: what to compare with what, in the order of computation."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from efficientids_flax.config import BackboneConfig
from parity_tests.compare.operations import BESIDE
from parity_tests.names.table import LayerForm, Name, NameTable
from parity_tests.recording import Arrays, Pass

NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class Wanted:
    """One recorded value; if the origin stacks layers, the value of one layer.

    Attributes:
        name: recorded name; `name[layer]` if it was taken out of a stack.
        values: the recorded array.
        row: its row of the name table; None if there is none.
        ours: path of our value.
        layer: number of its layer; None outside of the layers.
        rank: place in the order of computation.
        ignored: reason why it is not compared; None if it is.
        exact: value of the origin's run in float32; None if there is none.
    """

    name: str
    values: np.ndarray
    row: Name | None
    ours: str = ""
    layer: int | None = None
    rank: tuple[int, ...] = ()
    ignored: str | None = None
    exact: np.ndarray | None = None

    @property
    def needs(self) -> frozenset[str]:
        """Paths of our values that the comparison uses."""
        beside = () if self.layer is None else (f"layers_{self.layer}/{name}" for name in BESIDE)
        return frozenset((self.ours, *beside))


def wanted(one: Pass, table: NameTable, backbone: BackboneConfig, ours: Arrays) -> list[Wanted]:
    """List every recorded value of a pass except gradients, in the order of computation.

    Args:
        one: the pass.
        table: table of the origin's names.
        backbone: configuration of our decoder.
        ours: our values; if several rows fit, the first one whose value exists is used.
    """
    values = _all(one)
    exact = _all(one.exact) if one.exact is not None else {}
    counts = _places(values, table.forms)
    found: list[Wanted] = []
    for name, array in values.items():
        rest, pieces = _layers(name, array, table.forms, counts, backbone)
        exacts: dict[int | None, np.ndarray] = {}
        if name in exact:
            exacts = dict(_layers(name, exact[name], table.forms, counts, backbone)[1])
        for layer, piece in pieces:
            label = name if len(pieces) == 1 else f"{name}[{layer}]"
            item = Wanted(label, piece, None, layer=layer, exact=exacts.get(layer))
            found.append(_match(item, name, rest, table, backbone, ours))
    return sorted(found, key=lambda item: item.rank)


def _all(one: Pass) -> dict[str, np.ndarray]:
    """Activations, outputs and metrics, with the prefixes that the tables use."""
    values = dict(one.activations)
    values |= {f"outputs/{name}": value for name, value in one.outputs.items()}
    return values | {f"metrics/{name}": value for name, value in one.metrics.items()}


def _places(values: Mapping[str, np.ndarray], forms: Sequence[LayerForm]) -> dict[str, int]:
    """Number of places (layers of a block or stage) for each prefix."""
    seen: dict[str, set[int]] = defaultdict(set)
    for name in values:
        for form in forms:
            match = form.pattern.fullmatch(name)
            if match and "place" in form.pattern.groupindex:
                seen[form.prefix.partition("/x_layers_")[0]].add(int(match["place"]))
    return {prefix: max(places) + 1 for prefix, places in seen.items()}


def _layers(
    name: str,
    array: np.ndarray,
    forms: Sequence[LayerForm],
    counts: Mapping[str, int],
    backbone: BackboneConfig,
) -> tuple[str | None, list[tuple[int | None, np.ndarray]]]:
    """The name within a layer (None outside of the layers), and the values layer by layer."""
    for form in forms:
        match = form.pattern.fullmatch(name)
        if match is None:
            continue
        count = counts.get(form.prefix.partition("/x_layers_")[0], backbone.layers_per_block)
        if "place" not in form.pattern.groupindex:
            if match["rest"]:
                continue
            return "0", list(form.split(array, count - 1, count))
        return match["rest"] or "0", list(form.split(array, int(match["place"]), count))
    return None, [(None, array)]


def _match(
    item: Wanted,
    name: str,
    rest: str | None,
    table: NameTable,
    backbone: BackboneConfig,
    ours: Arrays,
) -> Wanted:
    """The value with its row of the table, our path and its place in the order of computation."""
    candidates = []
    own = backbone if item.layer is None else backbone.of_layer(item.layer)
    for section, rows, text in (
        (1, table.layers, rest),
        (0, table.inputs, name),
        (2, table.outputs, name),
    ):
        for place, row in enumerate(rows):
            if text is None or not (row.pattern.fullmatch(text) and row.holds(own)):
                continue
            path = _path(row, text, backbone.num_layers - 1)
            layer = item.layer if section == 1 else None
            if layer is not None:
                path = f"layers_{layer}/{path}".rstrip("/")
            numbers = map(int, NUMBER.findall(text)) if "{n}" in row.ours else ()
            rank = (section, layer or 0, place, *numbers)
            candidates.append(replace(item, row=row, ours=path, rank=rank))
    there = [candidate for candidate in candidates if candidate.ours in ours]
    if candidates:
        return (there or candidates)[0]
    reason = next((i.reason for i in table.ignored if i.pattern.fullmatch(name)), None)
    return replace(item, rank=(3,), ignored=reason)


def _path(row: Name, text: str, last: int) -> str:
    """Our path, with numbers taken from the recorded name."""
    if row.ours == "*":
        return text
    path = row.ours.replace("{last}", str(last))
    if "*" in path:
        return text
    if "{n}" in path:
        template = re.escape(row.recorded).replace(r"\{n\}", r"(\d+)").replace(r"\*", ".*")
        match = re.fullmatch(template, text)
        assert match is not None
        for number in match.groups():
            path = path.replace("{n}", number, 1)
    return path
