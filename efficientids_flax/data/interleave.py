"""Texts and items, interleaved: from titles and ids to the batches of `EfficientIDSModel`.

    builder = PromptBuilder(load_tokenizer("Qwen/Qwen3-0.6B"), num_items=len(titles))
    example = Example(["Watched: ", *titled([3, 17], titles), "Next: "], answer=[4])
    batch = builder.batch([example], length=64)

      ids                 <begin>  text ...  item  text ...  item   <end>   padding
      input_item_weights     0        0       1       0        1      0        0
      inputs_indicator       1        1       1       1        0      0        0
      paddings               0        0       0       0        0      0        1
                             \\------------ prompt ---------/  \\- answer -/

Labels are the ids shifted left. The prompt is not learned: `weights` is 1 where the next token
belongs to the answer (if `answer_words` is False: where it is an item of the answer).
`label_item_weights` is 1 where the next token is an item of the answer; these labels are ranked in
an evaluation. Letters: B rows, T time, V words, I items.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from efficientids_flax.core.model_checks import raise_listed
from efficientids_flax.data.texts import Example, Part
from efficientids_flax.data.tokens import Tokens, packed, padded
from efficientids_flax.inference.prompts import Prompts

Overflow = Literal["error", "cut"]
Rows = dict[str, np.ndarray]


@dataclass(frozen=True)
class PromptBuilder:
    """Makes batches from texts and items.

    Attributes:
        tokenizer: from `load_tokenizer`, or any with the interface of transformers.
        num_items: I.
        vocab_size: V of the model; None: words are not checked.
        begin, end: word ids around each example; None: the tokenizer's BOS and EOS, if any.
        placeholder: item id that replaces each item of an answer in the input, as in the original
            (its 102); None: the item itself, so that an answer may have several.
        padding: the side on which rows are padded.
        answer_words: whether the words of an answer, and the end after it, are trained on too.
            Otherwise only its items are, and everything before the last item may be cut off.
    """

    tokenizer: Any = field(repr=False)
    num_items: int
    vocab_size: int | None = None
    begin: Sequence[int] | None = None
    end: Sequence[int] | None = None
    placeholder: int | None = None
    padding: Literal["right", "left"] = "right"
    answer_words: bool = True

    def __post_init__(self) -> None:
        if self.padding not in ("right", "left"):
            raise ValueError(f"padding: expected 'right' or 'left', found {self.padding!r}")

    def batch(
        self,
        examples: Sequence[Example],
        length: int | None = None,
        *,
        pack: bool = False,
        overflow: Overflow = "error",
    ) -> Rows:
        """A batch to train on.

        Args:
            examples: examples with answers.
            length: T; None: that of the longest example.
            pack: put several examples into a row, as segments that do not see each other; needs
                `length`.
            overflow: for an example longer than T: 'error', or 'cut', which drops the oldest tokens
                of the prompt.

        Returns:
            `ids`, `labels`, `input_item_weights`, `label_item_weights`, `inputs_indicator`,
            `segment_ids`, `segment_pos`, `paddings` int32 and `weights` float32, each [B, T]; B is
            the number of examples, or of packed rows. Padding is 0 in all fields but `paddings`.

        Raises:
            ValueError: listing every part that is neither text nor item, every id that is out of
                range, and every example that is empty or too long.
        """
        problems: list[str] = []
        rows = self._rows(examples, problems)
        problems += [
            f"example {number}: has no answer"
            for number, example in enumerate(examples)
            if not example.answer
        ]
        rows = self._fitted(rows, length, overflow, problems)
        if pack and (length is None or self.padding == "left"):
            problems.append("pack: needs a length, and padding on the right")
        raise_listed("examples", problems)
        places = packed(rows, length or 0) if pack else [[row] for row in rows]
        return padded(places, length, self.padding, self.answer_words)

    def prompts(
        self,
        prompts: Sequence[Sequence[Part]],
        length: int | None = None,
        *,
        overflow: Overflow = "error",
    ) -> Prompts:
        """Prompts whose next item is to be predicted, for `Ranker.rank`.

        Args:
            prompts: texts and item ids.
            length, overflow: as in `batch`.

        Raises:
            ValueError: as in `batch`.
        """
        problems: list[str] = []
        rows = self._rows([Example(prompt) for prompt in prompts], problems, asked=True)
        # Before cutting: items that are cut off were seen too.
        items = [row.ids[(row.is_item > 0) & (row.prefix > 0)] for row in rows]
        rows = self._fitted(rows, length, overflow, problems)
        problems += [f"example {n}: is empty" for n, row in enumerate(rows) if not len(row.ids)]
        raise_listed("prompts", problems)
        batch = padded([[row] for row in rows], length, self.padding, self.answer_words)
        kept = ("ids", "input_item_weights", "inputs_indicator", "segment_ids", "segment_pos")
        batch = {name: batch[name] for name in (*kept, "paddings")}
        time = batch["ids"].shape[1]
        last = np.where(batch["inputs_indicator"] > 0, np.arange(time), -1).max(axis=1)
        seen = np.full((len(rows), max((len(found) for found in items), default=0)), -1, np.int32)
        for row, found in enumerate(items):
            seen[row, : len(found)] = found
        return Prompts(batch, last.astype(np.int32), seen)

    def sizes(self, examples: Sequence[Example]) -> list[int]:
        """The number of tokens of each example, including begin and end.

        Raises:
            ValueError: as in `batch`, for wrong parts and ids.
        """
        problems: list[str] = []
        rows = self._rows(examples, problems)
        raise_listed("examples", problems)
        return [len(row.ids) for row in rows]

    def around(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The word ids at an example's beginning, and at its end."""
        begin = _own(self.begin, self.tokenizer, "bos_token_id")
        return begin, _own(self.end, self.tokenizer, "eos_token_id")

    def words(self, texts: Iterable[str]) -> dict[str, list[int]]:
        """Text -> word ids; each text is tokenised on its own."""
        texts = list(dict.fromkeys(texts))
        if not texts:
            return {}
        found = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        return dict(zip(texts, map(list, found), strict=True))

    def _rows(
        self, examples: Sequence[Example], problems: list[str], asked: bool = False
    ) -> list[Tokens]:
        """The tokens of each example; appends to the problems.

        `asked`: the answer is to be predicted, so the row ends with the prompt, or the placeholder.
        """
        begin, end = self.around()
        # (ids in the input, ids as labels, whether items, whether part of the prompt)
        ending = [(end, end, 0, 0)]
        if asked:
            hidden = (self.placeholder,)
            ending = [] if self.placeholder is None else [(hidden, hidden, 1, 0), *ending]
        words = self.words(
            part
            for example in examples
            for part in (*example.prompt, *example.answer)
            if isinstance(part, str)
        )
        found = []
        for number, example in enumerate(examples):
            pieces: list[tuple[Sequence[Any], Sequence[int], int, int]] = [(begin, begin, 0, 1)]
            for name, mark in (("prompt", 1), ("answer", 0)):
                for place, part in enumerate(getattr(example, name)):
                    if problem := self._problem(part):
                        problems.append(f"example {number}, {name} part {place}: {problem}")
                        continue
                    item = not isinstance(part, str)
                    own = [int(part)] if item else words[part]  # pyright: ignore[reportArgumentType]
                    hides = item and not mark and self.placeholder is not None
                    pieces.append(([self.placeholder] if hides else own, own, int(item), mark))
            row = Tokens.of([*pieces, *ending])
            problems += self._range_problems(number, row)
            found.append(row)
        return found

    def _problem(self, part: Any) -> str | None:
        if isinstance(part, str):
            return None
        if isinstance(part, bool) or not isinstance(part, int | np.integer):
            return f"found {part!r}, expected a text or an item id"
        if not 0 <= part < self.num_items:
            return f"item {part} is outside of [0, {self.num_items})"
        return None

    def _range_problems(self, number: int, row: Tokens) -> list[str]:
        if self.vocab_size is None:
            return []
        beyond = row.ids[(row.is_item == 0) & (row.ids >= self.vocab_size)]
        if not len(beyond):
            return []
        return [
            f"example {number}: the tokenizer's word {beyond[0]} is outside of"
            f" [0, {self.vocab_size}), the model's words"
        ]

    def _fitted(
        self, rows: list[Tokens], length: int | None, overflow: str, problems: list[str]
    ) -> list[Tokens]:
        """The rows, with the oldest tokens of the prompt dropped if they are too long."""
        if overflow not in ("error", "cut"):
            problems.append(f"overflow: expected 'error' or 'cut', found {overflow!r}")
        if length is None:
            return rows
        if length < 1:
            problems.append(f"length: expected at least 1, found {length}")
        first = len(self.around()[0])
        fitted = []
        for number, row in enumerate(rows):
            surplus = max(len(row.ids) - length, 0)
            spare = int(np.sum(row.prefix)) - first
            if not self.answer_words and row.is_item.any():  # all before the last item may go
                spare = int(np.flatnonzero(row.is_item)[-1]) - first
            if surplus and overflow == "error":
                problems.append(
                    f"example {number}: {len(row.ids)} tokens, length is {length};"
                    " overflow='cut' drops the oldest of the prompt"
                )
            elif surplus > spare:
                problems.append(
                    f"example {number}: {len(row.ids) - spare} tokens without its prompt,"
                    f" length is {length}"
                )
            kept = np.delete(np.arange(len(row.ids)), np.s_[first : first + surplus])
            fitted.append(Tokens(*(values[kept] for values in row)))
        return fitted


def _own(given: Sequence[int] | None, tokenizer: Any, name: str) -> tuple[int, ...]:
    """The given word ids, else the tokenizer's."""
    if given is not None:
        return tuple(given)
    word = getattr(tokenizer, name, None)
    return () if word is None else (word,)
