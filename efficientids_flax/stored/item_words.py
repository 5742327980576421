"""The words around items in a prompt, such as titles: `item_words.npz`.

A model that was trained on prompts gets the same prompts for recommendations. Its export contains
their token ids, so that the tokenizer is not needed. Letters: I items, N items of a history, T
tokens.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from efficientids_flax.config import EfficientIDSConfig, PromptConfig
from efficientids_flax.whole_files import write_whole

NAME = "item_words.npz"
LISTS = ("first", "between", "last")
Words = Sequence[Sequence[int]]


@dataclass(frozen=True, eq=False)
class ItemWords:
    """The words around each item of a history.

    before | first(1) item 1 between(1, 2) item 2 ... item N last(N)

    Attributes:
        before: words before everything else.
        first, between, last: I lists of words each, by item: before the first item, between two
            items, after the last item.
        of_next: whether `between` is indexed by the following item, as if titles precede items;
            else by the preceding one.
        items: the largest N of the training histories.
        tokens: the largest T; of longer prompts the oldest tokens are cut off.
    """

    before: Sequence[int]
    first: Words
    between: Words
    last: Words
    of_next: bool
    items: int
    tokens: int

    @property
    def num_items(self) -> int:
        """Number of items, I."""
        return len(self.first)

    def around(self, history: Sequence[int] | np.ndarray) -> tuple[list[int], list[int]]:
        """(ids of words and items, 1 for items and 0 for words) of a history, [T] each.

        Args:
            history: items in [0, I), oldest first; if empty, the result is `before` alone.
        """
        ids, items = list(self.before), [0] * len(self.before)

        def add(words: Sequence[int], mark: int) -> None:
            ids.extend(map(int, words))
            items.extend([mark] * len(words))

        chosen = [int(item) for item in history]
        for place, item in enumerate(chosen):
            if place:
                add(self.between[item if self.of_next else chosen[place - 1]], 0)
            else:
                add(self.first[item], 0)
            add([item], 1)
        if chosen:
            add(self.last[chosen[-1]], 0)
        cut = max(len(ids) - self.tokens, 0)
        return ids[cut:], items[cut:]


class Prompted(NamedTuple):
    """How histories become the prompts that a model was trained on.

    Attributes:
        config: the words around a history.
        words: the words around its items; None: there are none.
    """

    config: PromptConfig
    words: ItemWords | None = None


def read_prompted(directory: str | os.PathLike[str], model: Any) -> Prompted | None:
    """The `prompt` argument of `save_model` for a model that is stored already; None: no prompts.

    Args:
        directory: directory of the model.
        model: configuration of the model.

    Raises:
        ValueError: the words that its prompts need are missing, or belong to another catalogue.
    """
    if not isinstance(model, EfficientIDSConfig) or model.prompt is None:
        return None
    if not model.prompt.item_words:
        return Prompted(model.prompt)
    words = read_item_words(directory)
    if words is None:
        raise ValueError(
            f"{directory}: the model was trained on prompts with words around the items, and {NAME}"
            " is not there; export the model again"
        )
    if words.num_items != model.num_items:
        raise ValueError(
            f"{epath.Path(directory) / NAME}: words of {words.num_items} items, the model has"
            f" {model.num_items}"
        )
    return Prompted(model.prompt, words)


def read_item_words(directory: str | os.PathLike[str]) -> ItemWords | None:
    """The words around items in a model's directory; None if it has none.

    Raises:
        ValueError: the file has another format, or is damaged.
    """
    file = epath.Path(directory) / NAME
    if not file.exists():
        return None
    try:
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as stored:
            found = dict(stored)
        lists = {name: _lists(found, name) for name in LISTS}
        made = ItemWords(
            found["before"].tolist(), **lists, of_next=bool(found["of_next"]),
            items=int(found["items"]), tokens=int(found["tokens"]),
        )  # fmt: skip
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file}: is no file of words around items: {error}") from error
    if len({len(one) for one in lists.values()}) != 1:
        raise ValueError(f"{file}: its lists are of different catalogues; export the model again")
    return made


def write_item_words(directory: str | os.PathLike[str], words: ItemWords) -> None:
    """Write `item_words.npz`."""
    made: dict[str, Any] = {
        "before": np.asarray(words.before, np.int32),
        "of_next": np.asarray(words.of_next),
        "items": np.asarray(words.items),
        "tokens": np.asarray(words.tokens),
    }
    for name in LISTS:
        given = getattr(words, name)
        made[name] = np.fromiter((word for one in given for word in one), np.int32)
        made[f"{name}_sizes"] = np.asarray([len(one) for one in given], np.int32)
    content = io.BytesIO()
    np.savez_compressed(content, **made)
    write_whole(epath.Path(directory) / NAME, content.getvalue())


def _lists(found: dict[str, np.ndarray], name: str) -> list[list[int]]:
    """Lists of words, from a flat array and the sizes of the lists."""
    words, sizes = found[name], found[f"{name}_sizes"]
    if len(words) != int(sizes.sum()):
        raise ValueError(f"{name}: {len(words)} words, expected {int(sizes.sum())}")
    return [part.tolist() for part in np.split(words, np.cumsum(sizes)[:-1])] if len(sizes) else []
