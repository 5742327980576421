"""Tensors that hold several parameters of all experts in a layer: taken apart, and fused again.

Letters: P number of parts in a fused tensor.
"""

from collections.abc import Iterator, Mapping

from converters.arrays import Array, Joined, Part
from converters.errors import MappingError
from converters.huggingface.pieces import in_layer
from converters.huggingface.tables import TensorTable
from converters.rules import Rule, apply_rules

Ops = Mapping[str, str]  # name of a fused tensor -> an operation, with numbers in place of letters


def unfused(
    arrays: Mapping[str, Array], table: TensorTable, layers: str, ops: Ops
) -> dict[str, Array]:
    """Replace the tensors of `TensorTable.fused` by their parts.

    Args:
        arrays: name -> array.
        table: table of the family.
        layers: prefix of a layer's names.
        ops: name of a fused tensor -> operation that gives it the shape [P, ...].

    Raises:
        MappingError: shapes do not fit.
    """
    found: dict[str, Array] = {}
    for name, array in arrays.items():
        start, rest = in_layer(name, layers)
        fused = table.fused.get(rest)
        if fused is None:
            found[name] = array
            continue
        made = _operated(array, name, ops[rest])
        if len(fused.parts) == 1:
            found[start + fused.parts[0]] = made
            continue
        for index, part in enumerate(fused.parts):
            found[start + part] = Part(made, 0, index, index + 1, drop=True)
    return found


def fused_again(
    arrays: Mapping[str, Array], table: TensorTable, layers: str, ops: Ops
) -> Iterator[tuple[str, Array, str, tuple[str, ...]]]:
    """Undo `unfused` for the tensors that the family's files store fused.

    Args:
        arrays, table, layers: see `unfused`.
        ops: name of a fused tensor -> operation that makes it from [P, ...].

    Yields:
        (name of a tensor, its array, name of its first part, the operations).

    Raises:
        MappingError: a part is missing.
    """
    wholes = {part: whole for whole, fused in table.fused.items() if fused.written
              for part in fused.parts}  # fmt: skip
    for name, array in arrays.items():
        start, rest = in_layer(name, layers)
        whole = wholes.get(rest)
        if whole is None:
            yield name, array, name, ()
            continue
        parts = [start + part for part in table.fused[whole].parts]
        if missing := [part for part in parts if part not in arrays]:
            raise MappingError(f"{start}{whole}: {', '.join(missing)} is missing")
        if name == parts[0]:
            joined = Joined(tuple(arrays[part] for part in parts), 0, True)
            steps = ("stack 0", ops[whole])
            yield start + whole, _operated(joined, start + whole, ops[whole]), name, steps


def _operated(array: Array, name: str, op: str) -> Array:
    return apply_rules({name: array}, [Rule(name, name, op)]).leaves[0].array if op else array
