"""Dequantizes weights that public files hold quantised: MXFP4 of gpt-oss, FP8 with scales.

`quantization_config` decides how; names tell the weights from their scales.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from converters.arrays import Array, BlockScaled, Leaf, Mxfp4, Scaled, Source, Split, Transposed
from converters.errors import MappingError
from converters.huggingface.names import another_form
from converters.paxml import is_float

BLOCKS, EXPONENTS = "_blocks", "_scales"  # a pair of tensors in place of the weight
SCALES = "_scale_inv"  # a tensor beside the weight
OF_INPUTS = ".activation_scale"  # for products in float8; not needed after dequantization
FP8 = ("float8_e4m3fn", "float8_e5m2")


def numbers_of(
    tensors: Mapping[str, Leaf], about: Mapping[str, Any], dtype: np.dtype
) -> dict[str, Array]:
    """Dequantize the tensors, as lazy arrays.

    Args:
        tensors: name -> leaf.
        about: `quantization_config` of the model; empty if nothing is quantised.
        dtype: dtype of the result; the product with the scales is computed in float32.

    Raises:
        MappingError: scales that do not fit or have no weight, or an unknown method.
    """
    arrays: dict[str, Array] = {name: Source(leaf) for name, leaf in tensors.items()}
    if not about:
        return arrays
    method = about.get("quant_method")
    make = {"mxfp4": _mxfp4, "fp8": _fp8}.get(method) if isinstance(method, str) else None
    if make is None:
        raise MappingError(f"quantization_config: quant_method {method!r} is not read")
    problems: list[str] = []
    found = make(arrays, about, dtype, problems)
    if problems:
        lines = [*problems[:20], *(["..."] if len(problems) > 20 else [])]
        opening = f"quantised weights ({method}), {len(problems)} problem(s):"
        raise MappingError("\n  ".join([opening, *lines]))
    return found


def _mxfp4(
    arrays: Mapping[str, Array], about: Mapping[str, Any], dtype: np.dtype, problems: list[str]
) -> dict[str, Array]:
    """Turn experts' weights [X, out, in / 32, 16] into [X, in, out], as the model's class has."""
    found = {
        name: array for name, array in arrays.items() if not name.endswith((BLOCKS, EXPONENTS))
    }
    for name in arrays:
        if name.endswith(EXPONENTS) and name.removesuffix(EXPONENTS) + BLOCKS not in arrays:
            problems.append(f"{name}: no {name.removesuffix(EXPONENTS)}{BLOCKS} beside it")
        if not name.endswith(BLOCKS):
            continue
        weight = name.removesuffix(BLOCKS)
        exponents = arrays.get(weight + EXPONENTS)
        if exponents is None:
            problems.append(f"{name}: no {weight}{EXPONENTS} beside it")
            continue
        try:
            found[weight] = Transposed(Mxfp4(arrays[name], exponents, dtype), (0, 2, 1))
        except ValueError as error:
            problems.append(f"{weight}: {error}")
    return found


def _fp8(
    arrays: Mapping[str, Array], about: Mapping[str, Any], dtype: np.dtype, problems: list[str]
) -> dict[str, Array]:
    """Multiply weights in float8 by the scales of their blocks."""
    found = {
        name: array for name, array in arrays.items() if not name.endswith((SCALES, OF_INPUTS))
    }
    if form := another_form(found):
        raise MappingError(form)
    size = about.get("weight_block_size")
    if size is not None and not (
        isinstance(size, list) and len(size) == 2 and all(type(n) is int and n > 0 for n in size)
    ):
        problems.append(f"weight_block_size: expected two numbers, found {size!r}")
        return found
    for name, array in list(found.items()):
        scales = arrays.get(name + SCALES)
        if scales is None:
            if array.dtype.name in FP8:
                problems.append(f"{name}: is {array.dtype}, and no {name}{SCALES} beside it")
            continue
        if not (is_float(array.dtype) and is_float(scales.dtype)):
            problems.append(
                f"{name}: is {array.dtype} with scales in {scales.dtype}; only floats are read"
            )
            continue
        try:
            found[name] = _scaled(array, scales, size, dtype)
        except ValueError as error:
            problems.append(f"{name}: {error}")
    problems += [
        f"{name}: no {name.removesuffix(SCALES)} beside it"
        for name in arrays
        if name.endswith(SCALES) and name.removesuffix(SCALES) not in arrays
    ]
    return found


def _scaled(array: Array, scales: Array, size: list[int] | None, dtype: np.dtype) -> Array:
    """Multiply a weight by its scales: for blocks of `size`, or for evenly divided blocks.

    Raises:
        ValueError: the scales do not fit.
    """
    if size is not None:
        return BlockScaled(array, scales, (size[0], size[1]), dtype)
    if not scales.shape:
        return Scaled(array, scales, (), dtype)
    if scales.shape == (1,):
        scales = Split(scales, 0, (1, 1))
    fits = len(array.shape) == len(scales.shape) == 2 and 0 not in scales.shape
    if not fits or any(n % part for n, part in zip(array.shape, scales.shape, strict=True)):
        raise ValueError(f"scales {list(scales.shape)} do not fit {list(array.shape)}")
    rows, columns = (n // part for n, part in zip(array.shape, scales.shape, strict=True))
    return BlockScaled(array, scales, (rows, columns), dtype)
