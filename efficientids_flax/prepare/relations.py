"""The queries as relational expressions, which every engine runs.

    rows, users, items, texts   staged, see `stage`
    all_user_ids, all_item_ids  number int32, id string: numbered by first occurrence in the source
    user_codes, item_codes      code int64, number int32: only if codes are not these numbers
    passing, kept               row, user, item, rating?, time?: rows left by the filters
    kept_users, kept_items      user or item: those with rows in `kept`
    descriptions                id, title, text: of the remaining items
    user_ids, item_ids          old int32, number int32, id string: those in `kept`, without gaps

Each function gives an expression on tables of these names. Both engines compare ids as UTF-8 bytes;
no expression depends on the order of rows, or on how an engine rounds.
"""

from typing import Any

import ibis
from ibis import _

from efficientids_flax.prepare.stage import Staged

LARGEST = 1 << 62  # limit of a sorting key
ID_COLUMNS = {"code": "int64", "id": "string"}
NUMBERED = {"number": "int32", "id": "string"}
ROLES = ("user", "item")
CODES = {"code": "int64", "number": "int32"}


def ids(staged: str, *, numbered: bool) -> Any:
    """Each id once, numbered by first occurrence.

    Args:
        staged: name of the table of codes and ids.
        numbered: whether the codes already are these numbers.
    """
    found: Any = ibis.table(ID_COLUMNS, name=staged)
    if numbered:
        return found.select(number=found.code.cast("int32"), id=found.id)
    first = found.group_by("id").agg(first=found.code.min())
    return first.select(number=_rank(first.first), id=first.id)


def codes(staged: str, ids_table: str) -> Any:
    """The number of the id behind each code.

    Args:
        staged: name of the table of codes and ids.
        ids_table: name of the table of ids and their numbers.
    """
    found = ibis.table(ID_COLUMNS, name=staged)
    numbers = ibis.table(NUMBERED, name=ids_table)
    return found.join(numbers, "id").select("code", "number")


def columns_of(staged: Staged) -> dict[str, str]:
    """Columns and types of rows in which users and items are numbers."""
    columns = {"row": "int64", "user": "int32", "item": "int32"}
    columns |= {"rating": "float64"} if staged.rated else {}
    return columns | ({"time": "int64"} if staged.times else {})


def numbered_rows(staged: Staged, min_rating: float | None) -> Any:
    """The rows, with numbers for users and items.

    Args:
        staged: what was read.
        min_rating: lower ratings are left out; None: none are.
    """
    columns = columns_of(staged)
    rows: Any = ibis.table({**columns, "user": "int64", "item": "int64"}, name="rows")
    if min_rating is not None:
        rows = rows.filter(rows.rating >= min_rating)
    for role in ROLES:
        if role in staged.numbered:
            rows = rows.mutate(**{role: rows[role].cast("int32")})
        else:
            codes = ibis.table(CODES, name=f"{role}_codes").select(
                **{role: "code", "now": "number"}
            )
            rows = rows.join(codes, role).drop(role).rename({role: "now"})
    return rows.select(*columns)


def pairs(rows: Any, duplicates: str, *, timed: bool) -> Any:
    """The interactions that are counted: each (user, item) once, with the time of the kept row.

    Args:
        rows: table with user and item, and time if `timed`.
        duplicates: which of several rows of a user and an item is kept; "all": every row counts.
        timed: whether to include the column `time`.
    """
    wanted = ["user", "item", *(["time"] if timed else [])]
    if duplicates == "all":
        return rows.select(*wanted)
    if not timed:
        return rows.select(*wanted).distinct()
    kept = rows.time.max() if duplicates == "keep-last" else rows.time.min()
    return rows.group_by("user", "item").agg(time=kept)


def core_step(name: str, min_user: int, min_item: int) -> Any:
    """One step of the k-core: the pairs whose user and item have enough of them.

    Args:
        name: name of a table of pairs.
        min_user, min_item: minimal numbers of pairs.
    """
    found = ibis.table({"user": "int32", "item": "int32"}, name=name)
    for column, least in (("user", min_user), ("item", min_item)):
        if least > 1:
            enough = found.group_by(column).agg(found=_.count()).filter(_.found >= least)
            found = found.semi_join(enough, column)
    return found


def survivors(table: Any, role: str) -> Any:
    """The distinct users or items of a table."""
    return table.select(role).distinct()


def renumbered(role: str) -> Any:
    """The ids that occur in `kept`, with new numbers in the same order."""
    alive = ibis.table({role: "int32"}, name=f"kept_{role}s").select(number=role)
    found = ibis.table(NUMBERED, name=f"all_{role}_ids").semi_join(alive, "number")
    return found.select(old=found.number, number=_rank(found.number), id=found.id)


def ordered_rows(staged: Staged) -> Any:
    """All rows in output order: by user, time and source order."""
    return _ordered(numbered_rows(staged, None), staged)


def ordered_kept(staged: Staged, kept: str) -> Any:
    """The rows left by the filters in output order, with renumbered users and items.

    Args:
        staged: what was read.
        kept: name of the table of these rows.
    """
    rows = ibis.table(columns_of(staged), name=kept)
    for role in ROLES:
        numbers = ibis.table({"old": "int32", **NUMBERED}, name=f"{role}_ids")
        rows = rows.join(numbers.select(**{role: "old", "now": "number"}), role)
        rows = rows.drop(role).rename({role: "now"})
    return _ordered(rows, staged)


def _ordered(rows: Any, staged: Staged) -> Any:
    keys = [rows.user]
    if staged.span is not None:
        least, greatest = staged.span
        wide = greatest - least + 1
        # Combine user and time into one number if it fits: engines sort fewer columns faster.
        if (staged.rows + 1) * wide < LARGEST and abs(least) < LARGEST:
            keys = [rows.user.cast("int64") * wide + (rows.time - least)]
        else:
            keys.append(rows.time)
    taken = {name: rows[name] for name in ("user", "item", "time") if name in rows.columns}
    if staged.rated:
        taken["rating"] = rows.rating.cast("float32")
    return rows.order_by(*keys, rows.row).select(**taken)


def in_order(table: str) -> Any:
    """Number and id, ordered by number."""
    return ibis.table(NUMBERED, name=table).order_by("number")


def descriptions(table: str) -> Any:
    """Id, title and text of each described item: the first row in the source.

    Args:
        table: name of the table of items and their numbers.
    """
    columns = {"row": "int64", "id": "string", "title": "string", "text": "string"}
    texts = ibis.table(columns, name="texts")
    first = texts.group_by("id").agg(row=texts.row.min())
    chosen = texts.join(first, ["id", "row"]).select("id", "title", "text")
    return chosen.semi_join(ibis.table(NUMBERED, name=table), "id")


def kept_descriptions() -> Any:
    """The table `descriptions`."""
    return ibis.table({"id": "string", "title": "string", "text": "string"}, name="descriptions")


def described_items(table: str) -> Any:
    """Number, id, title and text of each item, by number; null if it is not described.

    Args:
        table: name of the table of items and their numbers.
    """
    chosen = kept_descriptions()
    items = ibis.table(NUMBERED, name=table)
    joined = items.left_join(chosen, "id").select("number", "id", "title", "text")
    return joined.order_by("number")


def count(table: Any) -> Any:
    """The number of rows, as `found`."""
    return table.aggregate(found=table.count())


def time_at(table: Any, place: int) -> Any:
    """The time of the row at this index (from 0) in order of time."""
    return table.order_by("time").select("time").limit(1, offset=place)


def _rank(column: Any) -> Any:
    return ibis.row_number().over(order_by=column).cast("int32")
