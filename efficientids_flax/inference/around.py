"""The tokens around a history in a prompt, and around its items; and the lengths of prompts.

The original puts `<sos>` before a history, and the placeholder and `<eos>` after it. For a model
trained here on other prompts, `config.prompt` says what is around a history, and `ItemWords` has
the words around its items. Letters: B histories, T time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from efficientids_flax.config import EfficientIDSConfig
from efficientids_flax.stored import ItemWords

SOS, EOS = 0, 1  # words of the original's sequence builder
SHORTEST = 8  # lengths and batch sizes are padded to powers of two, so that few shapes compile

History = Sequence[int] | np.ndarray


class Around(NamedTuple):
    """The tokens around a history.

    Attributes:
        before, after: words that belong to the prompt.
        placeholder: the item id in place of the item to predict, or empty.
        end: words after it.
    """

    before: Sequence[int]
    after: Sequence[int]
    placeholder: Sequence[int]
    end: Sequence[int]


def around(config: EfficientIDSConfig) -> Around:
    """The tokens that the model was trained with; by default the original's."""
    prompt = config.prompt
    if prompt is None:
        words = bool(config.backbone.vocab_size)
        before, after, end = [SOS] * words, (), [EOS] * words
        placeholder = config.placeholder_item_id
    else:
        before, after, placeholder, end = (
            prompt.before, prompt.after, prompt.placeholder, prompt.end
        )  # fmt: skip
    return Around(before, after, () if placeholder is None else (placeholder,), end)


def asks_without_items(config: EfficientIDSConfig) -> bool:
    """Whether an empty history can be asked about: the prompt has words even without items."""
    found = around(config)
    own = config.prompt is not None and config.prompt.item_words
    return own or bool(found.before or found.after)


def with_words(
    config: EfficientIDSConfig, row: tuple[np.ndarray, np.ndarray], words: ItemWords | None
) -> tuple[np.ndarray, np.ndarray]:
    """(ids, 1 where they are items) of a history, with the words around each item.

    Args:
        config: the model's.
        row: ids and masks of the history, items only.
        words: words around the items; None: no words.

    Raises:
        ValueError: the model was trained with such words, and they are missing.
    """
    if words is None:
        if config.prompt is not None and config.prompt.item_words:
            raise ValueError(
                "words: the model was trained on prompts with words around the items, and they are"
                " not given: Ranker(..., words=read_item_words(PATH)), or item_masks with your own"
            )
        return row
    ids, items = words.around(row[0])
    frame = around(config)
    if not ids and not (frame.before or frame.after):
        raise ValueError("histories: one is empty, and so is the prompt without an item")
    return np.asarray(ids, np.int64), np.asarray(items, np.int32)


def positions(config: EfficientIDSConfig, ids: int) -> int:
    """T of a prompt: the ids of the history and the tokens around it, up to a power of two."""
    length = bucket(ids + sum(map(len, around(config))))
    if config.backbone.position_embedding == "learned":
        return min(length, config.backbone.max_positions or length)
    return length


def history_lengths(config: EfficientIDSConfig, most: int, step: int) -> tuple[int, ...]:
    """Ids that fill prompts of few lengths: `most`, and what is left of each `step`-th of it."""
    found, added = [most], sum(map(len, around(config)))
    length = positions(config, most) // step
    while length >= SHORTEST and length > added:
        found.insert(0, length - added)
        length //= step
    return tuple(found)


def trained_history(config: EfficientIDSConfig, words: ItemWords | None = None) -> int | None:
    """How many ids a history may have to be as long as those that were trained on; None: any.

    With words around items: how many items.
    """
    if words is not None:
        return words.items
    if config.trained_length is None:
        return None
    return max(config.trained_length - sum(map(len, around(config))), 1)


def trained_histories(
    config: EfficientIDSConfig,
    histories: Sequence[History],
    item_masks: Sequence[History | None] | None,
    words: ItemWords | None,
) -> list[int | None]:
    """`trained_history` for each history; for one with words of its own, in ids."""
    masks = item_masks or [None] * len(histories)
    return [trained_history(config, words if mask is None else None) for mask in masks]


def most_history(config: EfficientIDSConfig) -> int | None:
    """The most ids of a history that fit the model's learned positions; None: no limit."""
    limit = config.backbone.max_positions
    if config.backbone.position_embedding != "learned" or limit is None:
        return None
    return limit - sum(map(len, around(config)))


def longer_than(lengths: Sequence[int | None], histories: Sequence[History]) -> str | None:
    """A warning that histories are cut to the length of training; None if none is cut.

    Args:
        lengths: length for each history, see `trained_histories`.
        histories: the histories.
    """
    each = zip(lengths, histories, strict=True)
    longer = [
        most
        for most, history in each
        if most is not None and np.ndim(history) and len(history) > most
    ]
    if not longer:
        return None
    return (
        f"{len(longer)} of {len(histories)} histories have more than the {longer[0]} ids that the"
        f" model was trained on: their last {longer[0]} are used (max_history takes more)"
    )


def bucket(size: int, least: int = SHORTEST) -> int:
    """The next power of two, at least `least`."""
    return max(least, 1 << max(size - 1, 0).bit_length())
