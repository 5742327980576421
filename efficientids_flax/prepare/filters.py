"""Filters rows by minimum rating and k-core, and finds the boundaries of a split by time.

The k-core is the largest set of interactions in which every user and every item has enough of them:
those with fewer are removed, repeatedly, until none is left. With a split by time it is computed on
the training part alone, so that later data does not decide what is trained on. Users and items
removed there are removed from the later parts too; those that never occurred there stay, as new
users or cold items.
"""

import logging
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import ibis

from efficientids_flax.prepare import relations
from efficientids_flax.prepare.engines import Engine
from efficientids_flax.prepare.options import PrepareOptions
from efficientids_flax.prepare.reading import PER_SECOND, Times, date
from efficientids_flax.prepare.stage import Staged

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Filtered:
    """The result of the filters.

    Attributes:
        ordered: expression of the remaining rows, in the order in which they are written; None if
            all remain and `stage.users_in_turn` yields them in that order.
        passing: number of rows with at least the minimum rating.
        ids: role -> table with the remaining numbers and ids.
        valid_from, test_from: boundaries of a split by time, in the unit of staged times.
        pairs: number of interactions before the k-core, without duplicates; None without a k-core.
        removed: how many of these the k-core removes.
    """

    ordered: Any
    passing: int
    ids: dict[str, str]
    valid_from: int | None = None
    test_from: int | None = None
    pairs: int | None = None
    removed: int = 0


def filtered(engine: Engine, staged: Staged, options: PrepareOptions) -> Filtered:
    """Apply the filters.

    Args:
        engine: with the staged tables, and `all_*_ids` and `*_codes` of `relations`.
        staged: what was read.
        options: which filters and which split.

    Raises:
        ValueError: nothing is left, or a point in time cannot be read.
    """
    if options.min_rating is None and not options.has_core:
        all_rows = relations.numbered_rows(staged, None)
        points = _points(engine, all_rows, staged.times, options)
        ids = {role: f"all_{role}_ids" for role in relations.ROLES}
        ordered = None if staged.in_turn else relations.ordered_rows(staged)
        return Filtered(ordered, staged.rows, ids, *points)
    columns = relations.columns_of(staged)
    engine.keep("passing", relations.numbered_rows(staged, options.min_rating))
    passing = ibis.table(columns, name="passing")
    rows = _count(engine, passing)
    if not rows:
        raise ValueError(
            f"`min_rating`: none of {staged.rows} rows has {options.min_rating} or more"
        )
    points = _points(engine, passing, staged.times, options)
    kept, pairs, removed = "passing", None, 0
    if options.has_core:
        kept = "kept"
        pairs, removed = _keep_core(engine, passing, points, options)
    for role in relations.ROLES:
        engine.keep(f"kept_{role}s", relations.survivors(ibis.table(columns, name=kept), role))
        engine.keep(f"{role}_ids", relations.renumbered(role))
    ids = {role: f"{role}_ids" for role in relations.ROLES}
    return Filtered(relations.ordered_kept(staged, kept), rows, ids, *points, pairs, removed)


def _keep_core(
    engine: Engine,
    passing: Any,
    points: tuple[int | None, int | None],
    options: PrepareOptions,
) -> tuple[int, int]:
    """Store the rows of the k-core as `kept`; gives the interactions before it, and how many go."""
    first: Any = next((point for point in points if point is not None), None)
    timed = options.split == "time"
    engine.keep("pairs", relations.pairs(passing, options.duplicates, timed=timed))
    kinds = {"user": "int32", "item": "int32", **({"time": "int64"} if timed else {})}
    pairs: Any = ibis.table(kinds, name="pairs")
    trained = pairs.filter(pairs.time < first) if timed else pairs
    core = _core(engine, trained.select(*relations.ROLES), options)
    rows, left = passing, pairs
    for role in relations.ROLES:
        inside = ibis.table({"user": "int32", "item": "int32"}, name=core).select(role).distinct()
        outside = trained.select(role).distinct().anti_join(inside, role)
        rows, left = rows.anti_join(outside, role), left.anti_join(outside, role)
    engine.keep("kept", rows)
    total, after = _count(engine, pairs), _count(engine, left)
    if not _count(engine, ibis.table({"user": "int32", "item": "int32"}, name=core)):
        raise ValueError(
            f"`min_user`, `min_item`: nothing is left of {total} interactions with at least"
            f" {options.min_user} of each user and {options.min_item} of each item"
        )
    return total, total - after


def _core(engine: Engine, pairs: Any, options: PrepareOptions) -> str:
    """Compute the k-core of pairs; gives the name of its table."""
    engine.keep("core_0", pairs)
    step, rows = 0, _count(engine, pairs)
    while True:
        name = f"core_{step}"
        engine.keep(
            f"core_{step + 1}", relations.core_step(name, options.min_user, options.min_item)
        )
        engine.drop(name)
        step += 1
        left = _count(engine, ibis.table({"user": "int32", "item": "int32"}, name=f"core_{step}"))
        log.info("k-core, pass %d: %d of %d interactions are left", step, left, rows)
        if left == rows:
            return f"core_{step}"
        rows = left


def _points(
    engine: Engine, rows: Any, times: Times | None, options: PrepareOptions
) -> tuple[int | None, int | None]:
    """The boundaries of a split by time, (valid_from, test_from)."""
    if options.split != "time":
        return None, None
    assert times is not None
    if options.test_fraction is None:
        told = options.valid_from, options.test_from
        valid, test = (
            None if one is None else point(one, times, name)
            for name, one in zip(("valid_from", "test_from"), told, strict=True)
        )
    else:
        counted = relations.pairs(rows, options.duplicates, timed=True)
        total = _count(engine, counted)
        shares = [_exact(options.test_fraction)]
        if options.valid_fraction is not None:
            shares.append(shares[0] + _exact(options.valid_fraction))
        found = [
            engine.row(relations.time_at(counted, int(total * (1 - share))))["time"]
            for share in shares
        ]
        test, valid = found[0], found[1] if len(found) > 1 else None
    if valid is not None and test is not None and valid >= test:
        raise ValueError(
            f"split: the validation part would begin at {valid}, the test part at {test}: nothing"
            " is in between; too many rows have the same time, or the points are in the wrong order"
        )
    return valid, test


def _exact(share: float) -> Fraction:
    """The fraction as the user wrote it: 0.9 of ten rows are nine, not slightly less or more."""
    return Fraction(repr(share))


def point(text: str, times: Times, name: str) -> int:
    """Parse a point in time; gives it in the unit of staged times.

    Args:
        text: a date, or a number in the source's unit.
        times: how the source's times are read.
        name: name of the option, for messages.

    Raises:
        ValueError: it is neither a date nor a number, or a number although the source has dates.
    """
    moment = date(text)
    if moment is not None:
        return -(-moment * PER_SECOND[times.kept] // PER_SECOND["us"])
    if times.form == "date":
        raise ValueError(
            f"`{name}`: {text!r} is no date such as 2014-10-11, and the source's times are"
        )
    try:
        return int(text) * PER_SECOND[times.kept] // PER_SECOND[times.unit]
    except ValueError as error:
        raise ValueError(
            f"`{name}`: {text!r} is neither a date such as 2014-10-11 nor a whole number in the"
            " source's unit"
        ) from error


def _count(engine: Engine, table: Any) -> int:
    return int(engine.row(relations.count(table))["found"])
