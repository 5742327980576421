"""Describes objects as JSON values that are the same in every process, to compare runs.

Modules and records are described by their fields; functions by their names and closures, so that an
optax transformation shows its settings; arrays by digests. Clusterings are described separately.
"""

import dataclasses
import functools
import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import islice
from types import CodeType
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from flax import nnx

from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.digests import digest, digest_of
from efficientids_flax.moved import left_names
from efficientids_flax.train.keys import is_key, key_data

DEEP = 12  # levels of nesting; what is deeper is left out
MOST = 1000  # most functions, and most elements of a list
ALL = 10_000  # objects that are described, of all that an object holds
UNTOLD = {  # fields that say how a module is called, or that Flax adds
    "parent", "name", "scope", "training", "deterministic", "use_running_average", "rngs",
}  # fmt: skip
HELD = "held"  # fields of a callable object, or that of a method; up to release 2 there were none
Found = dict[str, Any]
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"  # whose code differs from another's
# With releases of their own, so that their code says nothing of a run.
PACKAGES = {"efficientids_flax", "converters", "flax", "jax", "optax", "builtins"}


def described(value: Any) -> Found:
    """Path -> plain value of everything in an object; '' is the object itself."""
    told = ((path, part, _told(part)) for path, part in islice(_parts(value, "", []), ALL))
    return {path: plain for path, part, plain in told if part is None or plain is not None}


def clusterings(value: Any) -> list[ClusteringInfo]:
    """Every clustering in a model."""
    parts = islice(_parts(value, "", []), ALL)
    return [part for _, part in parts if isinstance(part, ClusteringInfo)]


def code_of(value: Any) -> Found:
    """`code`, a digest of the code of a function or of a module's class; empty for packages' code.

    Includes functions, classes and plain values of the same Python module that the code names.
    Comments and docstrings do not count.
    """
    told: list[Any] = []
    seen: set[int] = set()

    def take(part: Any) -> None:
        while isinstance(part, functools.partial):
            part = part.func
        if not callable(part):
            return
        part = inspect.unwrap(getattr(part, "__func__", part))
        if isinstance(part, type):
            if id(part) not in seen and _is_own(part):
                seen.add(id(part))
                for one in part.__mro__[::-1]:
                    members = vars(one).values() if _is_own(one) else ()
                    for member in [one for one in members if callable(one)]:
                        take(member)
            return
        code = getattr(part, "__code__", None)
        if code is None or id(code) in seen or not _is_own(part):
            return
        seen.add(id(code))
        told.append(_code(code, part.__doc__))
        for name in sorted(_names(code)):
            named = part.__globals__.get(name)
            if isinstance(named, bool | int | float | str):
                told.append([name, repr(named)])
            elif getattr(named, "__module__", None) == part.__module__:
                take(named)

    is_function = inspect.isroutine(value) or isinstance(value, functools.partial | type)
    take(value if is_function else type(value))
    return {"code": digest_of(told), "python": PYTHON} if told else {}


def _is_own(part: Any) -> bool:
    return (getattr(part, "__module__", None) or "").partition(".")[0] not in PACKAGES


def _code(code: CodeType, text: str | None) -> list[Any]:
    """What a code object computes, as JSON values."""

    def constant(value: Any) -> Any:
        if isinstance(value, CodeType):
            return _code(value, None)
        if isinstance(value, frozenset):
            return sorted(map(repr, value))
        return None if text is not None and value == text else repr(value)

    return [code.co_code.hex(), list(code.co_names), [constant(one) for one in code.co_consts]]


def _names(code: CodeType) -> set[str]:
    inner = [_names(one) for one in code.co_consts if isinstance(one, CodeType)]
    return set(code.co_names).union(*inner)


def _parts(value: Any, path: str, seen: list[Any], depth: int = 0) -> Iterator[tuple[str, Any]]:
    """(Path, object) of an object and of all objects in it, functions once."""
    if callable(value) and not isinstance(value, type):
        if len(seen) > MOST or any(value is one for one in seen):
            return
        seen.append(value)
    yield path, value
    try:
        inner = _inner(value) if depth < DEEP else []
    except Exception:  # of a class that reads or loads what it is asked for
        inner = []
    for name, part in inner:
        yield from _parts(part, f"{path}.{name}".lstrip("."), seen, depth + 1)


def _told(value: Any) -> Any:
    """The plain value of an object, without its parts; None: it has none."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if np.isfinite(value) else repr(value)
    if isinstance(value, np.generic):
        return _told(value.item())
    if isinstance(value, type):
        return value.__qualname__
    if isinstance(value, np.dtype):
        return value.name
    if isinstance(value, np.ndarray | jax.Array):
        plain = key_data(value) if is_key(value) else value
        return digest(plain) if _has_values(plain) else str(value.shape)
    if isinstance(value, nnx.Variable | ClusteringInfo | Mapping | Sequence | AbstractSet):
        return None
    if callable(value) and hasattr(value, "__qualname__"):
        return value.__qualname__
    return type(value).__qualname__


def _has_values(array: Any) -> bool:
    """Whether this process has the values, and they are not addresses of objects."""
    return (
        not array.dtype.hasobject if isinstance(array, np.ndarray) else array.is_fully_addressable
    )


def _inner(value: Any) -> list[tuple[str, Any]]:
    """Name -> part of an object."""
    if isinstance(value, type | str | bytes | nnx.Variable | ClusteringInfo):
        return []
    if isinstance(value, Mapping):
        return [(str(name), part) for name, part in value.items()]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return list(zip(value._fields, value, strict=True))  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(value, AbstractSet):
        return [(str(index), part) for index, part in enumerate(sorted(value, key=repr))]
    if isinstance(value, Sequence):
        return [(str(index), part) for index, part in enumerate(islice(value, MOST))]
    if isinstance(value, nn.Module):
        fields = [field.name for field in dataclasses.fields(value)]  # pyright: ignore[reportArgumentType]
        return _told_fields(value, fields)
    if isinstance(value, nnx.Module):
        return _told_fields(value, sorted(vars(value)))
    if dataclasses.is_dataclass(value):
        return _told_fields(value, [field.name for field in dataclasses.fields(value)])
    if isinstance(value, functools.partial):
        return [("of", value.func), ("args", value.args), ("given", value.keywords)]
    return _closed_over(value)


def _told_fields(value: Any, names: Sequence[str]) -> list[tuple[str, Any]]:
    return [
        (name, getattr(value, name, None))
        for name in names
        if name not in UNTOLD and not name.startswith("_")
    ]


def _closed_over(value: Any) -> list[tuple[str, Any]]:
    """What a function, a bound method or a user's object holds."""
    if hasattr(value, "__wrapped__"):
        return [("of", value.__wrapped__)]
    if hasattr(value, "__self__") and hasattr(value, "__func__"):
        holder = value.__self__
        held = [] if _inner(holder) else _held(holder)
        return [("self", holder), *held, ("of", value.__func__)]
    code, cells = getattr(value, "__code__", None), getattr(value, "__closure__", None)
    if code is None:
        return _held(value) if callable(value) else []
    found: list[tuple[str, Any]] = []
    for name, cell in zip(code.co_freevars, cells or (), strict=True):
        try:
            found.append((name, cell.cell_contents))
        except ValueError:  # not bound yet
            continue
    found += [(str(n), part) for n, part in enumerate(getattr(value, "__defaults__", None) or ())]
    return found


def _held(value: Any) -> list[tuple[str, Any]]:
    return [(f"{HELD}.{name}", part) for name, part in getattr(value, "__dict__", {}).items()]


__getattr__ = left_names(__name__)
