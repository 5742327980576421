"""Turns the body of a request into questions, and answers into the body of a response."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from efficientids_flax.inference import Question
from efficientids_flax.serve.answers import Answer, Catalogue, Snapshot
from efficientids_flax.serve.limits import Limits
from efficientids_flax.serve.web.problems import Field, ProblemError, pointer

Places = Sequence[int | str]


class _Reader:
    """Reads the parts of one request, and collects what is wrong with them."""

    def __init__(self, snapshot: Snapshot, limits: Limits) -> None:
        self.snapshot, self.limits = snapshot, limits
        self.catalogue = snapshot.export.catalogue
        self.problems: list[Field] = []

    def wrong(self, detail: str, *places: int | str) -> None:
        self.problems.append(Field(detail, pointer(places)))

    def rows(self, items: Sequence[int | str], *places: int | str) -> list[int]:
        """The numbers of items; unknown ones are recorded as problems and left out."""
        found = list(map(self.catalogue.row, items))
        if None in found:
            for place, row in enumerate(found):
                if row is None:
                    self.wrong(self.catalogue.missing(items[place]), *places, place)
        return [row for row in found if row is not None]

    def bits(self, names: Sequence[str], field: str) -> int:
        """The bits of named sets, combined; unknown names are recorded as problems."""
        found, known = 0, self.snapshot.bits
        for place, name in enumerate(names):
            if name in known:
                found |= 1 << known[name]
            else:
                there = ", ".join(known) or "none"
                self.wrong(f"{name!r}: there is no such set; there are {there}", field, place)
        return found

    def history(self, one: Any, number: int) -> tuple[list[int], list[int] | None]:
        """The (ids, item mask) of a whole history; the mask is None if all are items."""
        at, config = ("histories", number), self.snapshot.export.ranker.config
        words = config.backbone.vocab_size
        if one.items is not None and (one.ids is not None or one.item_mask is not None):
            self.wrong("found items beside ids or item_mask: give items alone, or both others", *at)
            return [], None
        if one.items is None:
            if one.ids is None or one.item_mask is None:
                self.wrong("expected items, or ids with item_mask", *at)
                return [], None
            ids, mask = one.ids, one.item_mask
            if len(ids) != len(mask):
                self.wrong(f"found {len(mask)} for {len(ids)} ids", *at, "item_mask")
                return [], None
            for place, (number_, is_item) in enumerate(zip(ids, mask, strict=True)):
                count = config.num_items if is_item else words
                if number_ >= count:
                    kind = "item" if is_item else "word"
                    self.wrong(f"{kind} {number_} is outside of [0, {count})", *at, "ids", place)
        else:
            ids, mask = self.rows(one.items, *at, "items"), None
            if len(ids) < len(one.items):
                return ids, mask
        if not ids and not words:
            self.wrong("is empty; a model without words needs at least one item", *at)
        return ids, mask

    def done(self) -> None:
        """Raise a `ProblemError` if anything is wrong."""
        if self.problems:
            first = self.problems[0]
            rest = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
            raise ProblemError(422, f"{first.pointer}: {first.detail}{rest}", self.problems)


def recommended(
    body: Any, snapshot: Snapshot, limits: Limits, hidden: Sequence[str] = ()
) -> list[Question]:
    """The questions of a `Recommend` body.

    Args:
        body: instance of `messages.requests_for(limits).recommend`.
        snapshot: the snapshot that answers.
        limits: limits of the server.
        hidden: sets whose items are never recommended; sets that do not exist are ignored.

    Raises:
        ProblemError: naming fields that are wrong, such as unknown items and sets.
    """
    read = _Reader(snapshot, limits)
    needed, unwanted = read.bits(body.allowed, "allowed"), read.bits(
        body.exclude_sets, "exclude_sets")  # fmt: skip
    for name in hidden:
        unwanted |= 1 << snapshot.bits[name] if name in snapshot.bits else 0
    for_all = read.rows(body.exclude, "exclude")
    k = min(body.k, read.catalogue.num_items)
    found = []
    for number, one in enumerate(body.histories):
        ids, mask = read.history(one, number)
        excluded = for_all + read.rows(one.exclude, "histories", number, "exclude")
        if len(excluded) > limits.max_exclude:
            read.wrong(f"{len(excluded)} items with those for all, expected at most "
                       f"{limits.max_exclude}", "histories", number, "exclude")  # fmt: skip
        if body.exclude_seen:
            seen = ids if mask is None else [i for i, m in zip(ids, mask, strict=True) if m]
            excluded = [*seen, *excluded]
        found.append(Question(*snapshot.export.asked(ids, mask), k, excluded, needed, unwanted))
    read.done()
    return found


def scored(body: Any, snapshot: Snapshot, limits: Limits) -> list[Question]:
    """The questions of a `Score` body; see `recommended`."""
    read = _Reader(snapshot, limits)
    candidates = read.rows(body.candidates, "candidates")
    found = []
    for number, one in enumerate(body.histories):
        asked = snapshot.export.asked(*read.history(one, number))
        found.append(Question(*asked, candidates=candidates))
    read.done()
    return found


def rows_of(items: Sequence[int | str]) -> Callable[[Snapshot], np.ndarray]:
    """A function that gives the items of a set as numbers of the snapshot's catalogue.

    Returns:
        The function; it raises `ProblemError` naming items that the catalogue does not have.
    """

    def rows(snapshot: Snapshot) -> np.ndarray:
        read = _Reader(snapshot, Limits())
        found = read.rows(items, "items")
        read.done()
        return np.asarray(found, np.int32)

    return rows


def results(answers: Sequence[Answer], snapshot: Snapshot) -> dict[str, Any]:
    """The body of a `Results` response."""
    catalogue = snapshot.export.catalogue
    return {
        "results": [_result(one, catalogue) for one in answers],
        "generation": snapshot.generation,
    }


def _result(one: Answer, catalogue: Catalogue) -> dict[str, Any]:
    about: dict[str, Any] = {"items": one.rows}
    if catalogue.named:
        about["item_ids"] = list(map(catalogue.id, one.rows))
        about["titles"] = list(map(catalogue.title, one.rows))
    # JSON has no infinity: an item whose probability is 0 in float32 gets null.
    about["log_probability"] = [score if score > float("-inf") else None for score in one.scores]
    return about
