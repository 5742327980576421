"""Reads pickles of plain values without running code from them.

Python's own reader calls any function the file names. This one provides stand-ins for the three
names that NumPy's numbers need, and no others. Arrays are read by `core.clustering.pickles`.
"""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np

NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")
KINDS = "biuf"
LIST_OF = "a list, a dictionary, texts and numbers"


class ObjectError(ValueError):
    """A pickle holds something else, or is damaged."""


class _Dtype:
    """Stand-in for `numpy.dtype` of a number; pickles call it, then set its state."""

    __slots__ = ("code", "order")

    def __init__(self, code: str) -> None:
        self.code, self.order = code, "="

    def __setstate__(self, state: object) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order not in ("<", ">", "=", "|"):
            raise ObjectError(f"has a dtype of order {str(order)[:20]!r}")
        self.order = str(order)


def _dtype(code: object, *_: object) -> _Dtype:
    if not isinstance(code, str) or len(code) > 4 or code[:1] not in KINDS:
        raise ObjectError(f"has a dtype {str(code)[:20]!r}, expected a number's")
    return _Dtype(code)


def _scalar(dtype: object, content: object = b"") -> int | float | bool:
    if not isinstance(dtype, _Dtype) or not isinstance(content, bytes | str):
        raise ObjectError("has a number that is none")
    raw = content.encode("latin-1") if isinstance(content, str) else content
    found = np.dtype(dtype.code).newbyteorder(dtype.order)  # pyright: ignore[reportArgumentType]
    if len(raw) != found.itemsize:
        raise ObjectError(f"has a number of {len(raw)} bytes, expected {found.itemsize}")
    return np.frombuffer(raw, found)[0].item()


def _encode(text: object, codec: object = "") -> bytes:
    """Stand-in for `_codecs.encode`, with which protocols up to 2 store bytes."""
    if not isinstance(text, str) or codec != "latin1":
        raise ObjectError(f"encodes a {type(text).__name__} as {str(codec)[:20]!r}")
    return text.encode("latin-1")


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Give the stand-in for a name.

        Raises:
            ObjectError: there is none.
        """
        if module in NUMPY and name == "scalar":
            return _scalar
        if module == "numpy" and name == "dtype":
            return _dtype
        if module == "_codecs" and name == "encode":
            return _encode
        raise ObjectError(
            f"asks for {f'{module}.{name}'[:200]!a}, which no plain value needs; nothing of it was"
            " run. Do not open this file with pickle.load unless you trust its origin."
        )

    def persistent_load(self, pid: Any) -> Any:
        """Refuse references to objects outside of the file."""
        raise ObjectError("refers to something outside of it")


def read_object(path: str | os.PathLike[str]) -> Any:
    """Read a pickle of lists, dictionaries, texts and numbers (NumPy's become Python's).

    Raises:
        FileNotFoundError: there is no such file.
        ObjectError: the file is damaged, or contains anything else; names the file.
    """
    file = Path(path)
    with file.open("rb") as stream:
        try:
            return _Reader(stream).load()
        except ObjectError as error:
            raise ObjectError(f"{file}: {error}") from error
        except Exception as error:  # a damaged pickle may raise anything
            raise ObjectError(
                f"{file}: is no readable pickle of {LIST_OF} ({type(error).__name__}:"
                f" {str(error)[:200]}); one that joblib compressed has to be written again without"
            ) from error
