"""Corrections of faults in parameters: transposed, shifted, swapped, in another order."""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from efficientids_flax.tree import flatten
from parity_tests.compare import Difference
from parity_tests.hints.candidates import Candidate
from parity_tests.recording import Pass
from parity_tests.run import BACKBONE, Subject


def parameters(
    change: Callable[[Mapping[str, np.ndarray], Subject, Difference], Iterator[Any]],
) -> Any:
    """Makes a correction from `change`, which yields (cause, advice, changed leaves)."""

    def candidates(subject: Subject, one: Pass, first: Difference) -> Iterator[Candidate]:
        leaves = {path: np.asarray(value) for path, value in flatten(subject.params).items()}
        for cause, advice, changed in change(leaves, subject, first):
            yield Candidate(cause, advice, subject.with_parameters({**leaves, **changed}), one)

    return candidates


def _module(first: Difference, leaves: Mapping[str, np.ndarray]) -> list[tuple[str, Any]]:
    """(path, layer index) of the parameters that a difference's value is computed with."""
    path = first.ours.removesuffix("/product")
    found = []
    for prefix in ("", BACKBONE):
        found += [(name, ...) for name in leaves if name.startswith(f"{prefix}{path}/")]
        match = re.fullmatch(r"layers_(\d+)/(.*)", path)
        if match:
            stacked = re.compile(rf"{prefix}layers/(block_\d+/)?{re.escape(match[2])}/.*")
            found += [(name, int(match[1])) for name in leaves if stacked.fullmatch(name)]
    return found


def _changed(value: np.ndarray, index: Any, count: int, function: Callable[..., Any]) -> np.ndarray:
    """A leaf with a function applied to it, or to one of its layers."""
    if index is ...:
        return function(value)
    copy = value.copy()
    place = index // count if index < len(copy) * count else 0
    copy[place] = function(copy[place])
    return copy


def transposed(
    leaves: Mapping[str, np.ndarray], subject: Subject, first: Difference
) -> Iterator[Any]:
    """Try each kernel of the module transposed."""

    def turn(value: np.ndarray) -> np.ndarray:
        """Transpose the value as a matrix [D, rest] or [rest, D], and keep its shape."""
        rows = math.prod(value.shape[:-1]) if width_last else value.shape[0]
        columns = value.size // rows
        if rows != columns and value.ndim == 2:
            return value  # a transposed kernel would have had another shape
        return np.ascontiguousarray(value.reshape(columns, rows).T).reshape(value.shape)

    count = subject.backbone.layers_per_block
    for name, index in _module(first, leaves):
        if not name.endswith("kernel"):
            continue
        width_last = subject.backbone.kernel_axes == "out_in" and "/out/" not in name
        part = (lambda v: np.stack([turn(one) for one in v])) if "/qkv/" in name else turn
        changed = _changed(leaves[name], index, count, part)
        cause = f"the kernel {name} is transposed"
        yield cause, "transpose it in the conversion's rule", {name: changed}


def shifted_scale(
    leaves: Mapping[str, np.ndarray], subject: Subject, first: Difference
) -> Iterator[Any]:
    """Try the scale of the norm plus or minus one."""
    count = subject.backbone.layers_per_block
    for name, index in _module(first, leaves):
        if name.endswith("scale"):
            for shift, cause in ((1.0, "`1 +` is missing on"), (-1.0, "`1 +` is doubled on")):
                changed = _changed(leaves[name], index, count, lambda v, s=shift: v + s)
                advice = (
                    "norms store the scale minus one where norm_scale_plus_one is true (and in "
                    "every LayerNorm): shift it in the conversion"
                )
                yield f"{cause} the scale {name}", advice, {name: changed}


def fused_order(
    leaves: Mapping[str, np.ndarray], subject: Subject, first: Difference
) -> Iterator[Any]:
    """Try other orders of query, key and value."""
    orders = [(0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    count = subject.backbone.layers_per_block
    path = replace(first, ours=re.sub(r"attention/.*", "attention/qkv", first.ours))
    for order in orders:
        changed = {
            name: _changed(leaves[name], index, count, lambda v, o=order: v[list(o)])
            for name, index in _module(path, leaves)
        }
        if changed:
            was = ", ".join(("query", "key", "value")[place] for place in order)
            yield f"the fused kernel lies in the order {was}", "reorder its first axis", changed


def swapped_gate(
    leaves: Mapping[str, np.ndarray], _subject: Subject, _first: Difference
) -> Iterator[Any]:
    """Try gate and up projections of all layers swapped."""
    swapped = {}
    for name in leaves:
        if "mlp/up/" in name and name.replace("mlp/up/", "mlp/gate/") in leaves:
            other = name.replace("mlp/up/", "mlp/gate/")
            swapped |= {name: leaves[other], other: leaves[name]}
    if swapped:
        cause = "gate and up projections are swapped"
        yield cause, "swap mlp/up and mlp/gate in the rules", swapped


def layer_order(
    leaves: Mapping[str, np.ndarray], subject: Subject, first: Difference
) -> Iterator[Any]:
    """Try the layers in reverse order, and this layer swapped with each other one."""
    count = subject.backbone.num_layers
    orders = {"in reverse order": list(range(count))[::-1]}
    here = first.layer or 0
    for other in range(count):
        if other != here:
            order = list(range(count))
            order[here], order[other] = other, here
            orders[f"swapped: {here} and {other}"] = order
    for how, order in orders.items():
        changed = _permuted(leaves, order, subject.backbone.layers_per_block)
        if changed:
            yield f"layers are {how}", "number the layers in the rules as the origin does", changed


def _permuted(
    leaves: Mapping[str, np.ndarray], order: list[int], block: int
) -> dict[str, np.ndarray]:
    """The parameters with layer `order[i]` at place i; stacks are reordered along their axis."""
    changed = {}
    for name, value in leaves.items():
        if match := re.search(r"(?<![a-z])layers_(\d+)/(?!.*layers_)", name):
            if "adapter" in name:
                continue
            source = name.replace(f"layers_{match[1]}/", f"layers_{order[int(match[1])]}/")
            if source in leaves and leaves[source].shape == value.shape:
                changed[name] = leaves[source]
        elif re.search(r"(^|/)layers/", name) and block == 1:
            changed[name] = value[order]
    return changed
