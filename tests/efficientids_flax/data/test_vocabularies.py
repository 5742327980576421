"""Tokenizers are found wherever a source of data holds them, and nothing else of it is read."""

import functools
from collections import UserDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from efficientids_flax.data.vocabularies import vocabularies


class Words:
    """A tokenizer."""

    def __init__(self, *words: str) -> None:
        self.words = words

    def get_vocab(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words)}


class Holder:
    def __init__(self, *held: Any) -> None:
        self.held, self.again = held, self

    def read(self) -> None: ...


@dataclass(slots=True)
class Slots:
    words: Any


def closed_over(words: Any) -> Callable[[], Any]:
    return lambda: words


def default(words: Any) -> Callable[[], Any]:
    def read(words: Any = words) -> Any:
        return words

    return read


HOLDERS: dict[str, Callable[[Any], Any]] = {
    "object": Holder,
    "slots": Slots,
    "function": closed_over,
    "default": default,
    "partial": lambda words: functools.partial(print, words),
    "method": lambda words: Holder(words).read,
    "wrapped": lambda words: functools.lru_cache(closed_over(words)),
    "in containers": lambda words: [{"of": (deque([{words}]),)}],
    "deep": lambda words: functools.reduce(lambda held, _: Holder(held), range(20), words),
    "beside many": lambda words: Holder(
        {user: [user] * 20 for user in range(50_000)}, [[list(range(9))] * 2000] * 2000, words
    ),
    "beside a module": lambda words: Holder(np, words),
}


@pytest.mark.parametrize("holder", HOLDERS.values(), ids=list(HOLDERS))
def test_is_found(holder: Callable[[Any], Any]):
    found = vocabularies(holder(Words("a", "b")))
    assert found.keys() == {"Words"}
    assert found == vocabularies(Words("a", "b"))
    assert found != vocabularies(holder(Words("a", "c")))


class Loading(Sequence[int], Mapping[int, int]):  # pyright: ignore[reportIncompatibleMethodOverride, reportGeneralTypeIssues]
    """Each element would be loaded or made."""

    def __getitem__(self, key: Any) -> int:
        raise AssertionError(key)

    def __len__(self) -> int:
        return 1

    __iter__ = keys = items = values = __getitem__  # pyright: ignore[reportAssignmentType]


class Anything:
    """As remote objects have any attribute."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


class OfKind:
    def get_vocab(self, kind: str) -> dict[str, int]:
        return {kind: 0}


class Listed:
    def get_vocab(self) -> list[str]:
        return ["a"]


OTHERS = [Loading, Anything, OfKind, Listed, UserDict, lambda: Words]


@pytest.mark.parametrize("other", OTHERS)
def test_what_is_none_is_passed_over(other: Callable[[], Any]):
    assert vocabularies(Holder(other())) == {}
    assert vocabularies(Holder(other(), Words("a"))).keys() == {"Words"}


def test_of_several_of_a_class_the_last_counts():
    """In the order of attributes, however deep they are."""
    first, last = Words("a"), Words("b")
    assert vocabularies(Holder(Holder(first), last)) == vocabularies(last)
    assert vocabularies(Holder(first, Holder(last))) == vocabularies(last)
    assert vocabularies(Holder(Holder(Holder(first)), last)) == vocabularies(last)
