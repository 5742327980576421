"""Weights that PAXml stores quantized, as numbers again: `w * w_quantized_scale`.

See praxis/layers/quantization: scales run along the axes of a weight that are not contracted.
"""

from collections.abc import Mapping
from itertools import combinations

import numpy as np

from converters.arrays import Array, Scaled
from converters.errors import MappingError

SCALE, ZERO_POINT = "_quantized_scale", "_quantized_zp"
_STACKS = ("/repeat/", "/pipeline/")  # layers below these have an axis more


def dequantize(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Multiply each quantized parameter by its scales, in the scales' dtype.

    Args:
        arrays: parameter path -> array.

    Returns:
        The same without the scales.

    Raises:
        MappingError: zero points (asymmetric quantization), or scales that do not fit.
    """
    result = dict(arrays)
    problems: list[str] = []
    for path in arrays:
        if path.endswith(ZERO_POINT):
            problems.append(f"{path}: weights with a zero point are not dequantized")
        if not path.endswith(SCALE):
            continue
        weight_path = path.removesuffix(SCALE)
        weight, scale = arrays.get(weight_path), arrays[path]
        if weight is None or np.issubdtype(weight.dtype, np.inexact):
            problems.append(f"{path}: no quantized {weight_path} beside it")
            continue
        if weight.dtype.itemsize > 1:
            problems.append(f"{weight_path}: packed weights ({weight.dtype}) are not dequantized")
            continue
        axes = scale_axes(weight_path, weight.shape, scale.shape)
        if axes is None:
            problems.append(
                f"{path}: scales {list(scale.shape)} do not fit the weight {list(weight.shape)}"
            )
            continue
        result[weight_path] = Scaled(weight, scale, axes, scale.dtype)
        del result[path]
    if problems:
        raise MappingError("\n  ".join([f"--dequantize: {len(problems)} problem(s):", *problems]))
    return result


def scale_axes(
    path: str, weight: tuple[int, ...], scale: tuple[int, ...]
) -> tuple[int, ...] | None:
    """Axes of a weight along which its scales run; None if the shapes do not fit.

    Where sizes are equal by chance the name decides: an attention's output projection
    (`post/w` [.., D, N, H]) contracts its last two axes, all others contract one before. Axes of
    stacked layers come first and are never contracted.
    """
    stacked = sum(f"/{path}".count(place) for place in _STACKS)
    fits = [
        axes
        for axes in combinations(range(len(weight)), len(scale))
        if tuple(weight[axis] for axis in axes) == scale and axes[:stacked] == tuple(range(stacked))
    ]
    if not fits:
        return None
    return fits[0] if "/post/" in f"/{path}" else fits[-1]
