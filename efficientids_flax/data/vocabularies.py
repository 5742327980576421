"""The words of the tokenizers that a source of data uses, found in what it holds."""

import functools
import inspect
from collections import deque
from collections.abc import Iterable
from itertools import islice
from operator import itemgetter
from types import FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any

import numpy as np

from efficientids_flax.digests import digest_of

MOST = 1000  # elements of a container that are looked at
ALL = 10_000  # objects that are looked at, the nearest first
HOLD_NONE = (  # classes without a tokenizer inside
    str, bytes, int, float, complex, type(None), range, np.ndarray, np.generic, type, ModuleType,
)  # fmt: skip


def vocabularies(source: Any) -> dict[str, str]:
    """Class -> digest of the words of every tokenizer in a source of data.

    A tokenizer has a method `get_vocab` without arguments that gives word -> number; one that does
    not is left out. Elements of a container of another class than Python's own are not read: a
    dataset would load or make them.

    Args:
        source: any object, such as a loader, or a function and what it closes over.
    """
    found: dict[str, str] = {}
    for part in _held(source):
        words = _words(part)
        if words is not None:
            found[type(part).__name__] = digest_of(words)
    return found


def _words(part: Any) -> list[tuple[str, int]] | None:
    """The words of a tokenizer in order; None: it is none, or does not tell them."""
    if not callable(inspect.getattr_static(part, "get_vocab", None)):
        return None
    try:
        return sorted((str(word), int(number)) for word, number in part.get_vocab().items())
    except Exception:  # any class may have a method of that name, for something else
        return None


def _held(source: Any) -> list[Any]:
    """The object and what it holds, in the order in which attributes are written."""
    reached: list[tuple[tuple[int, ...], Any]] = [((), source)]
    seen = {id(source)}
    for place, value in reached:  # which grows
        for number, part in enumerate(_parts(value)):
            if len(reached) == ALL:
                break
            if not isinstance(part, HOLD_NONE) and id(part) not in seen:
                seen.add(id(part))
                reached.append(((*place, number), part))
    return [value for _, value in sorted(reached, key=itemgetter(0))]


def _parts(value: Any) -> Iterable[Any]:
    """What an object holds; runs no code of its class."""
    if isinstance(value, dict):
        return islice(dict.values(value), MOST)
    if isinstance(value, list | tuple | set | frozenset | deque):
        return islice(value, MOST)
    if isinstance(value, functools.partial):
        return (value.func, value.args, value.keywords)
    if isinstance(value, MethodType):
        return (value.__self__, value.__func__)
    if isinstance(value, FunctionType):
        return _closed_over(value)
    return _attributes(value)


def _closed_over(function: FunctionType) -> list[Any]:
    found = list(function.__defaults__ or ())
    for cell in function.__closure__ or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:  # not bound yet
            continue
    return found


def _attributes(value: Any) -> list[Any]:
    """Attributes of an object, and those that its class has slots for."""
    try:
        found = list(vars(value).values())
    except TypeError:  # it has none but in slots
        found = []
    for kind in type(value).__mro__:
        for member in vars(kind).values():
            if isinstance(member, MemberDescriptorType):
                try:
                    found.append(member.__get__(value))
                except AttributeError:  # not set
                    continue
    return found
