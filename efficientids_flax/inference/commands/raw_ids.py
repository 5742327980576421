"""Items by what the catalogue calls them: the ids that a model's `items.jsonl` has."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from efficientids_flax.stored import ItemNames

SHOWN = 3  # ids that a message names


class RawIds:
    """Finds items by their raw ids, as texts."""

    def __init__(self, checkpoint: str, names: ItemNames | None) -> None:
        """Nothing is looked up yet.

        Args:
            checkpoint: of the model, for messages.
            names: of its items; None: it has none.
        """
        self._checkpoint, self._names = checkpoint, names
        self._numbers: dict[str, int] | None = None

    def items(self, raw: Sequence[Any]) -> list[int]:
        """The numbers of these.

        Args:
            raw: texts or whole numbers.

        Raises:
            ValueError: naming each that no item has, with the nearest that one has; the model has
                no raw ids, or several items of one.
        """
        if self._numbers is None:
            self._numbers = self._read()
        unknown = [one for one in raw if str(one) not in self._numbers]
        if unknown:
            near = difflib.get_close_matches(str(unknown[0]), self._numbers, 1)
            told = f"; did you mean {near[0]!r}?" if near else ""
            named = ", ".join(repr(str(one)) for one in unknown[:SHOWN])
            more = f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else ""
            raise ValueError(f"{self._checkpoint} has no item with the raw id {named}{more}{told}")
        return [self._numbers[str(one)] for one in raw]

    def _read(self) -> dict[str, int]:
        ids = () if self._names is None else self._names.ids
        numbers = {str(one): number for number, one in enumerate(ids) if one is not None}
        if not numbers:
            raise ValueError(
                f"{self._checkpoint}: its items have no raw ids (no items.jsonl with an id a line);"
                " give their numbers"
            )
        if len(numbers) < sum(one is not None for one in ids):
            texts = [str(one) for one in ids if one is not None]
            twice = next(one for one in texts if texts.count(one) > 1)
            raise ValueError(
                f"{self._checkpoint}: several items have the raw id {twice!r}; give their numbers"
            )
        return numbers
