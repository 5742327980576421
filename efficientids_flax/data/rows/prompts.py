"""Rows of texts and items: a user's history as a prompt, the next item as the answer.

learn="last"     <begin> before TITLE item, TITLE item, after | next item <end>
learn="every"    <begin> before item | TITLE, item TITLE, next item <end>

Items after the bar are learned: only the last one, or each one given all before it, in one row.

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
NEW: Mapping[str, Any] = {"learn": "last", "items": None}  # later settings -> former behaviour
AT_ONCE = 1024  # prompts that are measured, and texts that are tokenised, in one call


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
        ValueError: 'every' with a form in which the title precedes its item, or with settings that
            would predict the last item from another context than the others.
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
                f"form: {self.form!r} has the title before its item, which learn 'every' predicts:"
                " the title would give it away; put {title} behind {item}"
            )
        if self.placeholder is not None:
            raise ValueError(
                f"placeholder: {self.placeholder} would hide the items that learn 'every' predicts,"
                " and the items after them are predicted from them; leave it out"
            )
        if self.after:
            raise ValueError(
                f"after: {self.after!r} stands only before the last item, and learn 'every'"
                " predicts each: put it into form, before {item}, or leave it out"
            )


class Remembered:
    """A caching tokenizer, which tokenises each text once.

    Attributes:
        tokenizer: the wrapped tokenizer.
        bos_token_id, eos_token_id: those of the tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        """Wrap a tokenizer such as `PromptBuilder` takes."""
        self.tokenizer = tokenizer
        self.bos_token_id = getattr(tokenizer, "bos_token_id", None)
        self.eos_token_id = getattr(tokenizer, "eos_token_id", None)
        self._known: dict[str, list[int]] = {}

    def __call__(self, texts: Sequence[str], **given: Any) -> dict[str, list[list[int]]]:
        """`input_ids` of texts; the other arguments must be the same in every call."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            words = self.tokenizer(new, **given)["input_ids"]
            self._known.update(zip(new, map(list, words), strict=True))
        return {"input_ids": [self._known[text] for text in texts]}


class PromptRows(Rows):
    """Prompts made of windows, or of held-out rows with a single target.

    Attributes:
        of: the windows or held-out rows; the last event of each is to be predicted.
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
        """Make no prompts yet.

        Args:
            of, prompting, length: see the class.
            titles: title of each item; None if unknown.

        Raises:
            ValueError: held-out rows have several targets each; titles are missing.
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
        """See `Rows`: the fields of `PromptBuilder.batch`, and perhaps `exclude` int32 [B, X].

        As in `HeldOut`, `exclude` has the items that the user has seen and the row does not show.
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
        """int [B], number of events of each history that fit its row; these are the last ones."""
        times = max(self.prompting.form.count("{item}"), 1)
        items = np.sum((rows["input_item_weights"] > 0) & (rows["inputs_indicator"] > 0), axis=1)
        return -(-items // times)

    @property
    def sizes(self) -> np.ndarray:
        """See `Rows`: numbers of tokens; makes every prompt to count them."""
        return np.minimum(self._whole, self.length)

    @cached_property
    def _whole(self) -> np.ndarray:
        """int32 [N], number of tokens of each prompt before it is cut."""
        found = np.empty(self.num_rows, np.int32)
        for start in range(0, self.num_rows, AT_ONCE):
            places = np.arange(start, min(start + AT_ONCE, self.num_rows))
            found[places] = self.builder.sizes(self._examples(places))
        return found

    def facts(self) -> dict[str, Any]:
        """See `Rows`."""
        told = asdict(replace(self.prompting, tokenizer=None))
        # Leave out defaults of later settings, so that runs from before can resume.
        told = {name: value for name, value in told.items() if value != NEW.get(name, ...)}
        return {**self.of.facts(), "prompt_length": self.length, **told}

    @property
    def words(self) -> str:
        """See `Rows`: digest of the texts around the items, and of each item's text."""
        return self._words

    @cached_property
    def _words(self) -> str:
        told = self.prompting
        items = self._titles if "{title}" in told.form else (0,)
        parts = [told.before, told.after, *titled(items, self._titles, told.form)]
        texts = [part for part in parts if isinstance(part, str)]
        digests = [  # in parts, since a large catalogue has many tokens
            digest_of(list(self.builder.words(texts[start : start + AT_ONCE]).values()))
            for start in range(0, len(texts), AT_ONCE)
        ]
        return digest_of([self.builder.around(), digests])

    @property
    def notes(self) -> tuple[str, ...]:
        """See `Rows`: with `learn='every'`, how many rows had to drop their oldest items."""
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
        """How to prompt the model at inference as in training, without the tokenizer.

        The items' words are left out (so inference cannot prompt) if the text between two items
        depends on both (titles on both sides), or if the form does not have exactly one `{item}`.
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
        # The item to predict follows the text that every item follows, which has no title in it.
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
        """Examples that predict the last event of each row, or with 'every' all but the first."""
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
        """An example in which each item but the first is learned; in evaluation only the last."""
        parts = titled(items, self._titles, self.prompting.form)
        places = [place for place, part in enumerate(parts) if not isinstance(part, str)]
        first = places[-1] if isinstance(self.of, HeldOut) else places[0] + 1
        before = [self.prompting.before] if self.prompting.before else []
        return Example([*before, *parts[:first]], parts[first : places[-1] + 1])
