"""Tensors that hold several parameters, and parameters that are made of several tensors.

Before a table's rules are applied, cuts split tensors and stacks combine them. On the way back,
both are undone after the rules.
"""

import math
import re
from collections.abc import Iterator, Mapping

from converters.arrays import Array, Joined, Merged, Part, Split
from converters.errors import MappingError
from converters.huggingface.tables import Cut, TensorTable

Sizes = Mapping[str, int]
HOLE = "{j}"  # number of a tensor within a stack


def taken_apart(
    arrays: Mapping[str, Array], table: TensorTable, layers: str, sizes: Sizes
) -> dict[str, Array]:
    """Split the tensors of `TensorTable.cuts` into their parts, and combine those of its stacks.

    Args:
        arrays: name -> tensor.
        table: table of the family.
        layers: prefix of a layer's names.
        sizes: size of each letter.

    Raises:
        MappingError: a tensor has other rows than its parts, or a stack has a gap.
    """
    found: dict[str, Array] = {}
    stacks: dict[str, dict[int, Array]] = {}
    for name, array in arrays.items():
        start, rest = in_layer(name, layers)
        if cut := table.cuts.get(rest):
            for (part, _), one in zip(cut.parts, _cut(name, array, cut, sizes), strict=True):
                found[start + part] = one
        elif stack := _stack_of(rest, table):
            whole, number = stack
            stacks.setdefault(start + whole, {})[number] = array
        else:
            found[name] = array
    return found | {whole: _stacked(whole, members) for whole, members in stacks.items()}


def put_together(
    arrays: Mapping[str, Array], table: TensorTable, layers: str, sizes: Sizes
) -> Iterator[tuple[str, Array, str, str]]:
    """Undo `taken_apart`; yields (name of a tensor, its array, name of its first part, operation).

    Raises:
        MappingError: the parts do not fit together.
    """
    cut_of = {part: whole for whole, cut in table.cuts.items() for part, _ in cut.parts}
    for name, array in arrays.items():
        start, rest = in_layer(name, layers)
        if whole := cut_of.get(rest):
            cut = table.cuts[whole]
            parts = [arrays.get(start + part) for part, _ in cut.parts]
            joined = _joined(start + whole, parts, cut, sizes)
            if rest == cut.parts[0][0]:
                yield start + whole, joined, name, "join 0"
        elif rest in table.stacks:
            for number in range(array.shape[0]):
                one = start + table.stacks[rest].replace(HOLE, str(number))
                yield one, Part(array, 0, number, number + 1, drop=True), name, f"part {number}"
        else:
            yield name, array, name, ""


def in_layer(name: str, layers: str) -> tuple[str, str]:
    """(prefix up to and including the layer, rest) of a name; ('', '') outside of layers."""
    start = re.match(re.escape(layers).replace(re.escape("{i}"), r"\d+"), name)
    return (start.group(), name[start.end() :]) if start else ("", "")


def _stack_of(rest: str, table: TensorTable) -> tuple[str, int] | None:
    for whole, one in table.stacks.items():
        found = re.fullmatch(re.escape(one).replace(re.escape(HOLE), r"(\d+)"), rest)
        if found:
            return whole, int(found.group(1))
    return None


def _stacked(whole: str, members: Mapping[int, Array]) -> Array:
    missing = set(range(len(members))) - members.keys()
    if missing:
        raise MappingError(
            f"{whole}: there are {len(members)} tensors of it, and none with number {min(missing)}"
        )
    try:
        return Joined(tuple(members[number] for number in range(len(members))), 0, True)
    except ValueError as error:
        raise MappingError(f"{whole}: {error}") from error


def _cut(name: str, array: Array, cut: Cut, sizes: Sizes) -> list[Array]:
    """The parts of a tensor; each consists of its rows from all blocks."""
    rows, blocks = [product_of(part, sizes) for _, part in cut.parts], product_of(cut.blocks, sizes)
    if not array.shape or array.shape[0] != sum(rows) or any(count % blocks for count in rows):
        raise MappingError(
            f"{name}: found {list(array.shape)}; its parts have {rows} rows, {sum(rows)} in all"
            + (f", in {blocks} blocks" if blocks > 1 else "")
        )
    axis = 0
    if blocks > 1:
        array, axis = Split(array, 0, (blocks, sum(rows) // blocks)), 1
    parts, first = [], 0
    for count in rows:
        part = Part(array, axis, first, first + count // blocks)
        parts.append(Merged(part, 0) if blocks > 1 else part)
        first += count // blocks
    return parts


def _joined(name: str, parts: list[Array | None], cut: Cut, sizes: Sizes) -> Array:
    """Join parts to the tensor that has them in blocks."""
    blocks = product_of(cut.blocks, sizes)
    found = [part for part in parts if part is not None]
    if len(found) < len(parts):
        raise MappingError(f"{name}: has {len(parts)} parts, of which {len(found)} are there")
    try:
        if blocks == 1:
            return Joined(tuple(found), 0)
        split = [Split(part, 0, (blocks, part.shape[0] // blocks)) for part in found]
        return Merged(Joined(tuple(split), 1), 0)
    except ValueError as error:
        raise MappingError(f"{name}: {error}") from error


def product_of(letters: str, sizes: Sizes) -> int:
    """The product of letters and numbers in a text such as 'N H'."""
    return math.prod(int(word) if word.isdigit() else sizes[word] for word in letters.split())
