"""The metadata of a zarr array: `.zarray` of version 2, `zarr.json` of version 3."""

import operator
from typing import Any

import ml_dtypes  # noqa: F401  (registers bfloat16, int4 and float8 with NumPy)
import numpy as np

from converters.zarr.codec import DIRECT, Codec


def dtype_named(name: str) -> np.dtype:
    """The NumPy dtype for a name in zarr's or PAXml's metadata, including those of `ml_dtypes`.

    Raises:
        ValueError: there is no such dtype, or it does not hold numbers.
    """
    try:
        dtype = np.dtype(name if isinstance(name, str) else "")  # None would be float64
    except (TypeError, SyntaxError) as error:
        raise ValueError(f"unknown dtype {name!r}") from error
    if dtype.kind not in "biufcV" or dtype.type is np.void:
        raise ValueError(f"dtype {name!r} does not hold numbers")
    return dtype


def parse_v2(found: dict[str, Any]) -> dict[str, Any]:
    """Fields of a `ZarrLeaf` from a `.zarray` (zarr v2 specification)."""
    if found["zarr_format"] != 2:
        raise ValueError(f"zarr_format is {found['zarr_format']!r}, not 2")
    stored = dtype_named(found["dtype"])
    compressor = found["compressor"]
    name = None if compressor is None else compressor["id"]
    shape, chunks = _sizes(found["shape"], 0), _sizes(found["chunks"], 1)
    if len(shape) != len(chunks):
        raise ValueError(f"shape {list(shape)} and chunks {list(chunks)} differ in rank")
    direct = name in DIRECT and found.get("order", "C") == "C" and not found.get("filters")
    fill = found.get("fill_value")
    return {
        "shape": shape,
        "dtype": stored.newbyteorder("=") if stored.kind != "V" else stored,
        "chunks": chunks,
        "codec": Codec(name) if direct else None,
        "separator": _separator(found.get("dimension_separator", ".")),
        "fills": fill is not None,
        "fill": _fill_value(fill),
        "stored_dtype": stored,
    }


def parse_v3(found: dict[str, Any]) -> dict[str, Any]:
    """Fields of a `ZarrLeaf` from a `zarr.json` (zarr v3 specification)."""
    if found["zarr_format"] != 3 or found["node_type"] != "array":
        raise ValueError("zarr_format is not 3, or it is no array")
    grid = found["chunk_grid"]
    if grid["name"] != "regular":
        raise ValueError(f"chunk grid {grid['name']!r} is not supported")
    return {
        "shape": _sizes(found["shape"], 0),
        "dtype": dtype_named(found["data_type"]),
        "chunks": _sizes(grid["configuration"]["chunk_shape"], 1),
        "codec": None,
        "fills": False,
    }


def _separator(found: Any) -> str:
    if found not in (".", "/"):
        raise ValueError(f"dimension_separator is {found!r}, not '.' or '/'")
    return found


def _sizes(values: Any, least: int) -> tuple[int, ...]:
    sizes = tuple(operator.index(value) for value in values)
    if any(size < least for size in sizes):
        raise ValueError(f"sizes {list(sizes)} below {least}")
    return sizes


def _fill_value(value: Any) -> Any:
    """A fill value as a number ('NaN' and 'Infinity' are written as text)."""
    if isinstance(value, str):
        return float(value)
    if value is not None and not isinstance(value, int | float):
        raise ValueError(f"fill_value is {value!r}, not a number")
    return value or 0
