"""Rows of texts and items: what a person has dealt with as a prompt, the next item as the answer.

<begin> before TITLE item, TITLE item, after | next item <end>

Letters: B rows, T time, I items, X excluded items.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from efficientids_flax.data.interleave import Overflow, PromptBuilder
from efficientids_flax.data.rows.arrays import Arrays, Rows
from efficientids_flax.data.rows.held_out import HeldOut
from efficientids_flax.data.rows.windows import WindowRows
from efficientids_flax.data.texts import Example, Part, titled

AT_ONCE = 1024  # prompts whose sizes are counted together


@dataclass(frozen=True)
class Prompting:
    """How a history becomes a prompt.

    Attributes:
        tokenizer: see `PromptBuilder`; it is asked once for each text.
        form: of each item of the history, with `{title}` and `{item}`.
        before, after: texts around the history; empty: none.
        begin, end, placeholder: see `PromptBuilder`; the original's are (0,), (1,) and 102.
        overflow: of a prompt that is longer than the row, 'cut' drops its oldest tokens.
    """

    tokenizer: Any = field(repr=False)
    form: str = "{title} {item}, "
    before: str = ""
    after: str = ""
    begin: Sequence[int] | None = None
    end: Sequence[int] | None = None
    placeholder: int | None = None
    overflow: Overflow = "cut"


class Remembered:
    """A tokenizer that is asked once for each text.

    Attributes:
        tokenizer: that is asked.
        bos_token_id, eos_token_id: its own.
    """

    def __init__(self, tokenizer: Any) -> None:
        """Of this one, as `PromptBuilder` takes it."""
        self.tokenizer = tokenizer
        self.bos_token_id = getattr(tokenizer, "bos_token_id", None)
        self.eos_token_id = getattr(tokenizer, "eos_token_id", None)
        self._known: dict[str, list[int]] = {}

    def __call__(self, texts: Sequence[str], **given: Any) -> dict[str, list[list[int]]]:
        """`input_ids` of texts, by the tokenizer with the same arguments each time."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            words = self.tokenizer(new, **given)["input_ids"]
            self._known.update(zip(new, map(list, words), strict=True))
        return {"input_ids": [self._known[text] for text in texts]}


class PromptRows(Rows):
    """Prompts of windows, or of held-out events of which the first is asked for.

    Attributes:
        of: the windows or held-out rows; the last event of each is asked for.
        prompting: how they become prompts.
        length: T.
    """

    def __init__(
        self,
        of: WindowRows | HeldOut,
        prompting: Prompting,
        length: int,
        titles: Sequence[str | None] | None = None,
    ) -> None:
        """Nothing but the places is computed.

        Args:
            of, prompting, length: see the class.
            titles: of each item; None where nobody says.

        Raises:
            ValueError: held-out rows ask for several items each; titles are missing.
        """
        if isinstance(of, HeldOut) and np.any(of.starts + of.counts - of.targets != 1):
            raise ValueError(
                f"{of.asked.split}: a prompt asks for one item, and some users have several"
                " held-out events: targets 'first' asks for the first of them"
            )
        num_items = of.sequences.num_items
        self._titles: Mapping[int, str] = dict.fromkeys(range(num_items), "")
        if "{title}" in prompting.form:
            known = enumerate(titles or ())
            self._titles = {item: title for item, title in known if title is not None}
            lacking = np.setdiff1d(of.sequences.items, list(self._titles))
            if len(lacking):
                raise ValueError(
                    f"form: {prompting.form!r} names items by their titles, and {len(lacking)} have"
                    f" none, item {lacking[0]} for one"
                )
        self.of, self.prompting, self.length = of, prompting, length
        self.builder = PromptBuilder(
            Remembered(prompting.tokenizer), num_items, begin=prompting.begin, end=prompting.end,
            placeholder=prompting.placeholder,
        )  # fmt: skip
        self.num_rows = of.num_rows
        self._width = 0
        if isinstance(of, HeldOut) and of.asked.exclude_seen:
            self._width = 1 << int(np.max(of.targets - of.begins) - 1).bit_length()

    def take(self, places: np.ndarray) -> Arrays:
        """See `Rows`: those of `PromptBuilder.batch`, and perhaps `exclude` int32 [B, X]."""
        overflow = self.prompting.overflow
        rows = self.builder.batch(self._examples(places), self.length, overflow=overflow)
        if self._width:
            assert isinstance(self.of, HeldOut)
            of = self.of
            rows["exclude"] = of.seen(of.begins[places], of.targets[places], self._width)
        return rows

    @cached_property
    def sizes(self) -> np.ndarray:  # pyright: ignore[reportIncompatibleMethodOverride]
        """See `Rows`: tokens; each prompt is made for it."""
        found = np.empty(self.num_rows, np.int32)
        for start in range(0, self.num_rows, AT_ONCE):
            places = np.arange(start, min(start + AT_ONCE, self.num_rows))
            found[places] = self.builder.sizes(self._examples(places))
        return np.minimum(found, self.length)

    def facts(self) -> dict[str, Any]:
        """See `Rows`."""
        told = asdict(replace(self.prompting, tokenizer=None))
        return {**self.of.facts(), "prompt_length": self.length, **told}

    @property
    def notes(self) -> tuple[str, ...]:
        """See `Rows`."""
        return self.of.notes

    def _examples(self, places: np.ndarray) -> list[Example]:
        """The last event of each row, asked for after the others."""
        of, told, found = self.of, self.prompting, []
        for start, count in zip(of.starts[places], of.counts[places], strict=True):
            *history, target = of.sequences.items[start : start + count].tolist()
            parts: list[Part] = [told.before, *titled(history, self._titles, told.form), told.after]
            found.append(Example([part for part in parts if part != ""], [target]))
        return found
