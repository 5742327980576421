"""Typed, frozen records stored as JSON: checked when constructed, with all problems listed at once.

A record is a frozen dataclass that inherits from `Record`. Its annotations are its schema: bool,
int, float, str, None, Literal, tuples, mappings, other records, and unions of these.
"""

import dataclasses
import difflib
import math
import numbers
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from typing import Any, Literal, Self, Union, get_args, get_origin, get_type_hints


class Record:
    """Base of the configuration dataclasses."""

    def __post_init__(self) -> None:
        """Check types first, then `problems()`; numbers of NumPy and lists become Python's.

        Raises:
            ValueError: names every wrong field, its value and what was expected.
        """
        for name, hint in schema(type(self)).items():
            object.__setattr__(self, name, _plain(hint, getattr(self, name)))
        found = type_problems(self) or list(self.problems())
        if found:
            raise ValueError(listed(type(self).__name__, found))

    def problems(self) -> Collection[str]:
        """What is wrong with values that have the right types; overridden by each record."""
        return ()

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON values: tuples become lists, records become dicts."""
        return {name: _to_json(getattr(self, name)) for name in schema(type(self))}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`; absent keys take their defaults.

        Raises:
            ValueError: unknown keys (with the nearest known one), missing keys, wrong values.
        """
        if not isinstance(values, Mapping):
            raise ValueError(f"{cls.__name__}: expected a mapping, found {values!r}")
        known = schema(cls)
        found = [unknown_key(key, known) for key in values if key not in known]
        found += [
            f"{field.name}: missing"
            for field in dataclasses.fields(cls)  # pyright: ignore[reportArgumentType]
            if field.name not in values
            and field.default is dataclasses.MISSING
            and field.default_factory is dataclasses.MISSING
        ]
        made = {}
        for key, value in values.items():
            if key in known:
                try:
                    made[key] = _from_json(known[key], value)
                except ValueError as error:
                    found.append(f"{key}: {error}")
        if found:
            raise ValueError(listed(cls.__name__, found))
        return cls(**made)


@cache
def schema(cls: type) -> dict[str, Any]:
    """Field names of a record class and their types, in order."""
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


@cache
def dotted_keys(cls: type) -> tuple[str, ...]:
    """All keys of a record class and of its nested records: `num_heads`, `moe.num_experts`."""
    keys = []
    for name, hint in schema(cls).items():
        keys.append(name)
        for option in _options(hint):
            if _is_record(option):
                keys += [f"{name}.{key}" for key in dotted_keys(option)]
    return tuple(keys)


def unknown_key(key: str, known: Collection[str]) -> str:
    """The message for an unknown key, with the nearest known one."""
    tails = {name.rsplit(".", 1)[-1]: name for name in known}
    near = difflib.get_close_matches(key, list(known), n=1) or [
        tails[name] for name in difflib.get_close_matches(key.rsplit(".", 1)[-1], list(tails), n=1)
    ]
    return f"{key}: unknown key" + (f"; did you mean {near[0]}?" if near else "")


def type_problems(record: Record) -> list[str]:
    """One sentence for each field whose value does not have the annotated type."""
    return [
        f"{name}: expected {describe(hint)}, found {getattr(record, name)!r}"
        for name, hint in schema(type(record)).items()
        if not fits(hint, getattr(record, name))
    ]


def positive(record: Record, *names: str) -> list[str]:
    """A problem for each of these fields that is neither None nor above 0."""
    return _outside(record, names, "above 0", lambda value: value > 0)


def rates(record: Record, *names: str) -> list[str]:
    """A problem for each of these fields outside of [0, 1)."""
    return _outside(record, names, "in [0, 1)", lambda value: 0 <= value < 1)


def _outside(
    record: Record, names: Sequence[str], wanted: str, good: Callable[[float], bool]
) -> list[str]:
    values = [(name, getattr(record, name)) for name in names]
    return [
        f"{name}: expected {wanted}, found {value}"
        for name, value in values
        if value is not None and not good(value)
    ]


def fits(hint: Any, value: Any) -> bool:
    """Whether `value` has the type `hint`; an int is a float, a bool is neither."""
    if hint is Any:
        return True
    if hint is None or hint is types.NoneType:
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and math.isfinite(value)
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return isinstance(value, str) and value in args
    if origin in (Union, types.UnionType):
        return any(fits(option, value) for option in args)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if len(args) == 2 and args[1] is Ellipsis:
            return all(fits(args[0], item) for item in value)
        return len(args) == len(value) and all(map(fits, args, value))
    if origin is Mapping:
        return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
    return isinstance(value, hint)


def describe(hint: Any) -> str:
    """A type in words, for messages."""
    origin, args = get_origin(hint), get_args(hint)
    if hint is types.NoneType:
        return "null"
    if origin is Literal:
        return " | ".join(repr(arg) for arg in args)
    if origin in (Union, types.UnionType):
        return " | ".join(describe(option) for option in args)
    if origin is tuple:
        return f"a list of {describe(args[0])}" if args[-1] is Ellipsis else "a list"
    return "a mapping" if origin is Mapping else hint.__name__


def _plain(hint: Any, value: Any) -> Any:
    """A number of NumPy as one of Python; a list as a tuple, where that is the type."""
    if hasattr(value, "item") and isinstance(value, numbers.Real):
        return value.item()  # pyright: ignore[reportAttributeAccessIssue]
    return _from_json(hint, value) if isinstance(value, list) else value


def _options(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _is_record(hint: Any) -> typing.TypeGuard[type[Record]]:
    return isinstance(hint, type) and issubclass(hint, Record)


def _to_json(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {key: _to_json(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_to_json(item) for item in value]
    return value


def _from_json(hint: Any, value: Any) -> Any:
    """JSON value -> value of type `hint`, as far as possible; the constructor checks the rest."""
    options = _options(hint)
    if float in options and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, Mapping):
        for option in options:
            if _is_record(option):
                return option.from_dict(value)
    if isinstance(value, list | tuple):
        for option in options:
            args = get_args(option)
            if get_origin(option) is tuple:
                item = args[0] if args[-1] is Ellipsis else Any
                return tuple(_from_json(item, part) for part in value)
            if option is Any:
                return tuple(_from_json(Any, part) for part in value)
    return value


def listed(name: str, found: Sequence[str]) -> str:
    """A message that lists all problems, one a line."""
    head = f"{name}: {len(found)} problem{'s' if len(found) > 1 else ''}:"
    return "\n  ".join([head, *(line.replace("\n", "\n  ") for line in found)])
