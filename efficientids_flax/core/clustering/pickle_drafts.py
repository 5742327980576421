"""Stand-ins for the functions and classes that array pickles name; they run no foreign code.

A draft records shape, dtype and bytes as the pickle gives them. At the end it becomes one NumPy
array, once the shape has been checked against the bytes that are there.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

_NUMBERS: Final = frozenset(
    ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
)


class ArrayPickleError(ValueError):
    """A file that is not a sequence of pickled number arrays; names the file and the pickle."""


@dataclasses.dataclass(frozen=True)
class _Marker:
    """A class that is only ever passed as an argument: numpy.ndarray, ml_dtypes.bfloat16."""

    name: str


@dataclasses.dataclass(frozen=True)
class _Latin1:
    """Bytes that protocols 0 to 2 write as text; encoded only when an array is made of them."""

    text: str


@dataclasses.dataclass(eq=False)
class DtypeDraft:
    """numpy.dtype(spec, align, copy), then its state."""

    spec: Any
    align: Any = False
    copy: Any = True
    byte_order: str = "="

    def __post_init__(self) -> None:
        if isinstance(self.spec, str) and self.spec.lstrip("<>=|").startswith("O"):
            raise ArrayPickleError(
                "holds an object array (it can carry anything, code too), expected numbers."
            )

    def set_state(self, state: Any) -> None:
        """Takes (version, byte order, parts, names, fields, item size, alignment, flags ...)."""
        _version, byte_order, parts, names, fields, *_ = state
        if not (parts is None and names is None and fields is None):
            raise ArrayPickleError("holds a structured array, expected numbers.")
        if byte_order not in ("<", ">", "=", "|"):
            raise ArrayPickleError("holds an array of unknown byte order.")
        self.byte_order = byte_order

    def finish(self) -> np.dtype:
        """The dtype, if it is a plain number's."""
        if isinstance(self.spec, _Marker) and self.spec is not _NDARRAY:
            import ml_dtypes

            return np.dtype(getattr(ml_dtypes, self.spec.name))
        if not isinstance(self.spec, str):
            raise ArrayPickleError(f"holds an array whose dtype is a {type(self.spec).__name__}.")
        if self.spec not in _NUMBERS:
            raise ArrayPickleError(
                f"holds an array of dtype {self.spec[:40]!a}, expected plain numbers."
            )
        dtype = np.dtype(self.spec)
        return dtype.newbyteorder(self.byte_order)  # pyright: ignore[reportArgumentType]


@dataclasses.dataclass(eq=False)
class ArrayDraft:
    """An array under construction; `set_state` fills in what the call left open."""

    shape: Any = None
    dtype: Any = None
    data: Any = None
    order: Any = "C"
    axes: Any = None

    def set_state(self, state: Any) -> None:
        """Takes (version, shape, dtype, column order?, bytes)."""
        _version, self.shape, self.dtype, by_column, self.data = state
        self.order = "F" if by_column is True else "C"

    def finish(self) -> np.ndarray:
        """The array, once its bytes are checked to fill its shape; read-only if they are."""
        if not isinstance(self.dtype, DtypeDraft):
            raise ArrayPickleError("holds an array without a dtype or content.")
        dtype = self.dtype.finish()
        data = self.data.text.encode("latin-1") if isinstance(self.data, _Latin1) else self.data
        if not isinstance(data, bytes | bytearray):
            raise ArrayPickleError(f"holds an array of {type(data).__name__}, expected its bytes.")
        shape = self.shape
        if not (
            isinstance(shape, tuple) and all(type(size) is int and size >= 0 for size in shape)
        ):
            raise ArrayPickleError("holds an array whose shape is not a tuple of sizes.")
        if math.prod(shape) * dtype.itemsize != len(data):
            raise ArrayPickleError(
                f"holds an array with {len(data)} bytes of content, which do not fill the shape it "
                f"claims ({str(shape)[:80]}, {dtype})."
            )
        if self.order == "K" and self.axes is not None:
            return np.frombuffer(data, dtype).reshape(shape).transpose(self.axes)
        order = "F" if self.order == "F" else "C"
        return np.frombuffer(data, dtype).reshape(shape, order=order)


def finish(result: object) -> np.ndarray | None:
    """The array (or None) that a pickle leaves.

    Raises:
        ArrayPickleError: the result is not an array, or not one of numbers.
        ValueError, TypeError: shape, dtype or axes of the array make no sense.
    """
    if result is None:
        return None
    if not isinstance(result, ArrayDraft):
        kind = type(result).__name__.lstrip("_")
        raise ArrayPickleError(f"holds a {kind}, expected an array of numbers.")
    return result.finish()


def _reconstruct(subtype: Any, _shape: Any, _typecode: Any) -> ArrayDraft:
    """numpy(.core|._core).multiarray._reconstruct: an empty array, filled by its state."""
    if subtype is not _NDARRAY:
        raise ArrayPickleError("holds another kind of array than numpy.ndarray.")
    return ArrayDraft()


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> ArrayDraft:
    """numpy(.core|._core).numeric._frombuffer: what protocol 5 uses for contiguous arrays."""
    return ArrayDraft(shape, dtype, data, order, axes)


def _reconstruct_jax(rebuild: Any, arguments: Any, state: Any, _aval: Any) -> ArrayDraft:
    """JAX's _reconstruct_array: the NumPy rebuild of its arguments, without JAX's weak type etc."""
    if rebuild is not _reconstruct:
        raise ArrayPickleError("holds a JAX array that is not rebuilt from a NumPy one.")
    draft = _reconstruct(*arguments)
    draft.set_state(state)
    return draft


def _encode(text: Any, encoding: Any) -> _Latin1:
    """_codecs.encode(text, 'latin1'): how protocols 0 to 2 write bytes."""
    if not (isinstance(text, str) and encoding in ("latin1", "latin-1")):
        raise ArrayPickleError("encodes something else than bytes written as Latin-1 text.")
    return _Latin1(text)


_NDARRAY: Final = _Marker("ndarray")
_BFLOAT16: Final = _Marker("bfloat16")
FUNCTIONS: Final = (DtypeDraft, _reconstruct, _from_buffer, _reconstruct_jax, _encode)
GLOBALS: Final[Mapping[tuple[str, str], object]] = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): DtypeDraft,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,  # NumPy 1
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,  # NumPy 2
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("jax._src.array", "_reconstruct_array"): _reconstruct_jax,  # JAX 0.4 and later
    ("jax.experimental.array", "_reconstruct_array"): _reconstruct_jax,  # JAX 0.3, new arrays
    ("jax._src.device_array", "reconstruct_device_array"): _reconstruct_jax,  # JAX 0.3 to 0.4
    ("ml_dtypes", "bfloat16"): _BFLOAT16,
    ("_codecs", "encode"): _encode,
}
