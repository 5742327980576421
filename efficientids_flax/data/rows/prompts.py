"""Rows of texts and items: what a person has dealt with as a prompt, the next item as the answer.

learn="last"     <begin> before TITLE item, TITLE item, after | next item <end>
learn="every"    <begin> before item | TITLE, item TITLE, next item <end>

After the bar items are learned: the last one, or each behind all that is before it, in one row.

Letters: B rows, T time, I items, X excluded items.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from efficientids_flax.config import PromptConfig
from efficientids_flax.data.interleave import Overflow, PromptBuilder
from efficientids_flax.data.rows.arrays import Arrays, Rows
from efficientids_flax.data.rows.held_out import HeldOut
from efficientids_flax.data.rows.windows import WindowRows
from efficientids_flax.data.texts import Example, Part, titled
from efficientids_flax.digests import digest_of
from efficientids_flax.stored import ItemWords, Prompted

Learn = Literal["last", "every"]
NEW: Mapping[str, Any] = {"learn": "last", "items": None}  # settings, as they were before
AT_ONCE = 1024  # prompts whose sizes are counted together, texts that are tokenised together


@dataclass(frozen=True)
class Prompting:
    """How a history becomes a prompt.

    Attributes:
        tokenizer: see `PromptBuilder`; it is called once for each text.
        form: text of each item of the history, with `{title}` and `{item}`.
        before, after: texts around the history; empty: none.
        begin, end, placeholder: see `PromptBuilder`; the original's are (0,), (1,) and 102.
        overflow: for a prompt that is longer than the row, 'cut' drops its oldest tokens.
        learn: labels of a training row: the 'last' item, with the end after it; or 'every' item
            but the first, and nothing else. Evaluations ask for the last item.
        items: most items of a history; None: as many as the row has positions.

    Raises:
        ValueError: 'every' with a form in which the title stands before its item, or with settings
            by which the last item would be predicted from another place than the others.
    """

    tokenizer: Any = field(repr=False)
    form: str = "{title} {item}, "
    before: str = ""
    after: str = ""
    begin: Sequence[int] | None = None
    end: Sequence[int] | None = None
    placeholder: int | None = None
    overflow: Overflow = "cut"
    learn: Learn = "last"
    items: int | None = None

    def __post_init__(self) -> None:
        if self.items is not None and self.items < 1:
            raise ValueError(f"items: expected at least 1, found {self.items}")
        if self.learn not in ("last", "every"):
            raise ValueError(f"learn: expected 'last' or 'every', found {self.learn!r}")
        if self.learn == "last":
            return
        lead, *others = self.form.split("{item}")
        if len(others) != 1:
            raise ValueError(
                f"form: {self.form!r} has {{item}} {len(others)} times; learn 'every' needs it once"
            )
        if "{title}" in lead:
            raise ValueError(
                f"form: {self.form!r} has the title before its item, which learn 'every' asks for:"
                " the title would tell it; put {title} behind {item}"
            )
        if self.placeholder is not None:
            raise ValueError(
                f"placeholder: {self.placeholder} would hide the items that learn 'every' asks for,"
                " and those behind them are to be found by them; leave it out"
            )
        if self.after:
            raise ValueError(
                f"after: {self.after!r} stands before the last item alone, and learn 'every' asks"
                " for each: put it into form, before {item}, or leave it out"
            )


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
        prefixes = isinstance(of, WindowRows) and of.windows.kind == "prefixes"
        if prefixes and prompting.learn == "every":
            raise ValueError(
                "windows: 'prefixes' has a row for each item, and learn 'every' learns all items of"
                " a row: the first ones would count most; take windows 'all'"
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
            placeholder=prompting.placeholder, answer_words=prompting.learn == "last",
        )  # fmt: skip
        self.num_rows = of.num_rows
        self._width = 0
        if isinstance(of, HeldOut) and of.asked.exclude_seen:
            self._width = 1 << int(np.max(of.targets - of.begins) - 1).bit_length()

    def take(self, places: np.ndarray) -> Arrays:
        """See `Rows`: those of `PromptBuilder.batch`, and perhaps `exclude` int32 [B, X].

        The latter has what a person has seen and the row has not, as that of `HeldOut`.
        """
        overflow = self.prompting.overflow
        rows = self.builder.batch(self._examples(places), self.length, overflow=overflow)
        if self._width:
            assert isinstance(self.of, HeldOut)
            of = self.of
            ends = of.targets[places] - self._kept(rows)
            rows["exclude"] = of.seen(of.begins[places], ends, self._width)
        return rows

    def _kept(self, rows: Arrays) -> np.ndarray:
        """int [B], events of each history that its row holds: the last ones, each counted once."""
        times = max(self.prompting.form.count("{item}"), 1)
        items = np.sum((rows["input_item_weights"] > 0) & (rows["inputs_indicator"] > 0), axis=1)
        return -(-items // times)

    @property
    def sizes(self) -> np.ndarray:
        """See `Rows`: tokens; each prompt is made for it."""
        return np.minimum(self._whole, self.length)

    @cached_property
    def _whole(self) -> np.ndarray:
        """int32 [N], tokens of each prompt before it is cut."""
        found = np.empty(self.num_rows, np.int32)
        for start in range(0, self.num_rows, AT_ONCE):
            places = np.arange(start, min(start + AT_ONCE, self.num_rows))
            found[places] = self.builder.sizes(self._examples(places))
        return found

    def facts(self) -> dict[str, Any]:
        """See `Rows`."""
        told = asdict(replace(self.prompting, tokenizer=None))
        # A run that was begun before there were these goes on.
        told = {name: value for name, value in told.items() if value != NEW.get(name, ...)}
        return {**self.of.facts(), "prompt_length": self.length, **told}

    @property
    def words(self) -> str:
        """See `Rows`: of what is around the items, of each item."""
        return self._words

    @cached_property
    def _words(self) -> str:
        told = self.prompting
        items = self._titles if "{title}" in told.form else (0,)
        parts = [told.before, told.after, *titled(items, self._titles, told.form)]
        texts = [part for part in parts if isinstance(part, str)]
        digests = [  # in parts, as a large catalogue has many tokens
            digest_of(list(self.builder.words(texts[start : start + AT_ONCE]).values()))
            for start in range(0, len(texts), AT_ONCE)
        ]
        return digest_of([self.builder.around(), digests])

    @property
    def notes(self) -> tuple[str, ...]:
        """See `Rows`: of rows whose every item is learned, how many lack their oldest ones."""
        if self.prompting.learn == "last" or self.prompting.overflow == "error":
            return self.of.notes
        long = int(np.sum(self._whole > self.length))
        if not long:
            return self.of.notes
        split = self.of.asked.split if isinstance(self.of, HeldOut) else "train"
        return (
            *self.of.notes,
            f"{split}: {long} of {self.num_rows} prompts have more than {self.length} tokens, up to"
            f" {int(np.max(self._whole))}, and are cut (a larger length keeps them, or fewer items"
            " of a history)",
        )

    def prompted(self) -> Prompted:
        """How the model is asked afterwards as it was trained, without the tokenizer.

        Without words of the items, so that it cannot be, where what stands between two items is of
        both (their titles on both sides), or where a form has not one `{item}`.
        """
        told = self.prompting
        begin, end = self.builder.around()
        lead, *tails = told.form.split("{item}")
        if len(tails) != 1 or all("{title}" in side for side in (lead, tails[0])):
            return Prompted(PromptConfig(item_words=True))

        def words(texts: Sequence[str]) -> list[list[int]]:
            found = self.builder.words(filter(None, texts))
            return [found.get(text, []) for text in texts]

        titles = [self._titles.get(item, "") for item in range(self.of.sequences.num_items)]
        leads = [lead.replace("{title}", title) for title in titles]
        behind = [tails[0].replace("{title}", title) for title in titles]
        between = [one + other for one, other in zip(behind, leads, strict=True)]
        of_next = "{title}" in lead
        # The one that is asked for has what every item has before it; it is no item's title.
        last = between if told.learn == "every" else behind
        (before,), (after,) = words([told.before]), words([told.after])
        around = len(begin) + len(after) + 1 + len(end)
        windows = self.of.asked if isinstance(self.of, HeldOut) else self.of.windows
        made = ItemWords(
            before, words(leads), words(between), words(last), of_next, windows.length,
            max(self.length - around, 1),
        )  # fmt: skip
        if told.placeholder is None:
            end = ()
        return Prompted(PromptConfig(begin, tuple(after), told.placeholder, end, True), made)

    def _examples(self, places: np.ndarray) -> list[Example]:
        """The last event of each row, asked for after the others; or each after those before it."""
        of, told, found = self.of, self.prompting, []
        for start, count in zip(of.starts[places], of.counts[places], strict=True):
            items = of.sequences.items[start : start + count].tolist()
            if told.learn == "every":
                found.append(self._every(items))
                continue
            *history, target = items
            parts: list[Part] = [told.before, *titled(history, self._titles, told.form), told.after]
            found.append(Example([part for part in parts if part != ""], [target]))
        return found

    def _every(self, items: list[int]) -> Example:
        """Items of which each but the first is learned; of an evaluation the last one."""
        parts = titled(items, self._titles, self.prompting.form)
        places = [place for place, part in enumerate(parts) if not isinstance(part, str)]
        first = places[-1] if isinstance(self.of, HeldOut) else places[0] + 1
        before = [self.prompting.before] if self.prompting.before else []
        return Example([*before, *parts[:first]], parts[first : places[-1] + 1])
