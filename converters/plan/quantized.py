"""Turns quantized weights into numbers: `w * w_quantized_scale - w_quantized_zp`.

See praxis/layers/quantization: its layers multiply the product with the quantized weight by the
scales, and subtract the zero points times the sum of the inputs. `uses` knows the axes of each.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.arrays import Array, Merged, Scaled, Unpacked, per_integer
from converters.errors import MappingError
from converters.paxml.infer import open_dump
from converters.plan.uses import Sizes, Use, use_of
from converters.rules import has_nhd_post

SCALE, ZERO_POINT = "_quantized_scale", "_quantized_zp"
NHD_POST = "{atten}.output_proj_use_nhd_shape"


@dataclass(frozen=True)
class Dequantized:
    """Parameters after dequantization.

    Attributes:
        params: path -> array; scales and zero points are gone.
        weights: path -> how the weight was stored, in words.
        notes: what the user should know.
    """

    params: dict[str, Array]
    weights: dict[str, str]
    notes: tuple[str, ...]


def numbers_of(
    params: dict[str, Array], dump: Mapping[str, Any] | None, asked_for: bool, notes: list[str]
) -> tuple[dict[str, Array], bool]:
    """Dequantize the parameters, or return the same dictionary if none is quantized.

    Args:
        params: parameter path -> array.
        dump: PAXml's own description of the job, if there is one.
        asked_for: whether the output is to hold dequantized weights; otherwise they only serve to
            infer the model.
        notes: receives what the user should know.

    Returns:
        The parameters, and whether their output projections of attention are [N, H, D].

    Raises:
        MappingError: dequantization was asked for and is not possible.
    """
    said = None if dump is None else open_dump(dump).get(NHD_POST, False) is True
    if not any(path.endswith((SCALE, ZERO_POINT)) for path in params):
        return params, _nhd(params, said)
    try:
        found = dequantize(params, said)
    except MappingError:
        if asked_for:
            raise
        return params, _nhd(params, said)
    if asked_for:
        notes += found.notes
    else:
        name, stored = next(iter(found.weights.items()))
        notes.append(
            f"{len(found.weights)} weights are quantized and kept as they are stored, such as"
            f" {name} ({stored}): no model runs on them. --dequantize makes them float32"
        )
    return found.params, _nhd(found.params, said)


def _nhd(params: Mapping[str, Array], said: bool | None) -> bool:
    return has_nhd_post({path: array.shape for path, array in params.items()}, said)


def dequantize(arrays: Mapping[str, Array], nhd_post: bool | None = None) -> Dequantized:
    """Unpack each quantized parameter, multiply it by its scales and subtract its zero points.

    Args:
        arrays: parameter path -> array.
        nhd_post: whether the output projection of attention is [N, H, D]; None: judged by shapes.

    Returns:
        Numbers in float32, or in float64 if the scales are; arrays without scales are unchanged.

    Raises:
        MappingError: scales without a weight, scales that do not fit it, or weights that are not
            packed the way Praxis packs.
    """
    result = dict(arrays)
    sizes = Sizes({path: array.shape for path, array in arrays.items()}, nhd_post)
    problems: list[str] = []
    weights: dict[str, str] = {}
    unsure: list[str] = []
    for path in [path for path in arrays if path.endswith(ZERO_POINT)]:
        if path.removesuffix(ZERO_POINT) + SCALE not in arrays:
            problems.append(f"{path}: a zero point without scales beside it")
    for path in [path for path in arrays if path.endswith(SCALE)]:
        name = path.removesuffix(SCALE)
        weight, scale, zero = arrays.get(name), arrays[path], arrays.get(name + ZERO_POINT)
        if weight is None or np.issubdtype(weight.dtype, np.inexact):
            problems.append(f"{path}: no quantized {name} beside it")
            continue
        try:
            use = use_of(name, weight.shape, scale.shape, sizes, _numbers(weight.dtype))
            result[name] = _number(weight, scale, zero, use)
        except ValueError as error:
            problems.append(
                f"{path}: scales {list(scale.shape)} do not fit the weight {list(weight.shape)}"
                f" {weight.dtype}: {error}"
            )
            continue
        packed = f", {use.factor} 4-bit numbers in each" if use.factor > 1 else ""
        weights[name] = f"{weight.dtype} {list(weight.shape)}{packed}"
        if use.guessed:
            unsure.append(name)
        del result[path]
        result.pop(name + ZERO_POINT, None)
    if problems:
        raise MappingError("\n  ".join([f"--dequantize: {len(problems)} problem(s):", *problems]))
    notes = [
        f"{', '.join(unsure[:3])}{' ...' if len(unsure) > 3 else ''}: taken for one number a byte; "
        "no other leaf shows whether two 4-bit numbers are packed in each"
    ] * bool(unsure)
    return Dequantized(result, weights, tuple(notes))


def _numbers(dtype: np.dtype) -> tuple[int, ...]:
    """The possible counts of numbers in one integer of this dtype, as Praxis packs them."""
    if "int4" in dtype.name:  # a real 4-bit dtype, not packed
        return (1,)
    return (1, per_integer(dtype)) if dtype.itemsize == 1 else (per_integer(dtype),)


def _number(weight: Array, scale: Array, zero: Array | None, use: Use) -> Array:
    """The dequantized weight.

    Raises:
        ValueError: the shapes do not fit.
    """
    if use.factor > 1:
        weight = Unpacked(weight, use.packed)
    if zero is not None and zero.shape != scale.shape:
        raise ValueError(f"its zero points have shape {list(zero.shape)}")
    # The product of int8 and bfloat16 needs 15 bits, which float32 holds and bfloat16 does not.
    dtype = scale.dtype if scale.dtype.itemsize >= 4 else np.dtype(np.float32)
    number: Array = Scaled(weight, scale, use.scaled, dtype, zero)
    return number if use.blocks is None else Merged(number, use.blocks)
