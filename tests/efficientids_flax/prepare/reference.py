"""What `prepare` has to compute, once more in plain Python, row by row and without any engine."""

from collections import Counter
from typing import NamedTuple


class Row(NamedTuple):
    user: str
    item: str
    rating: float
    time: int


class Expected(NamedTuple):
    """Sequences by user in the order of numbers, of (item, time, rating, split); ids of items."""

    users: list[str]
    items: list[str]
    sequences: list[list[tuple[str, int, float, int]]]
    counts: dict[str, int]


def without_duplicates(rows: list[Row], duplicates: str) -> list[Row]:
    """One row of each user and item, of those in order of time."""
    if duplicates == "all":
        return rows
    chosen: dict[tuple[str, str], Row] = {}
    for row in rows if duplicates == "keep-first" else reversed(rows):
        chosen.setdefault((row.user, row.item), row)
    kept = set(map(id, chosen.values()))
    return [row for row in rows if id(row) in kept]


def core(rows: list[Row], min_user: int, min_item: int) -> list[Row]:
    """The largest part in which everyone has enough: by removing one user or item at a time."""
    while True:
        users = Counter(row.user for row in rows)
        items = Counter(row.item for row in rows)
        few_users = [one for one, count in users.items() if count < min_user]
        few_items = [one for one, count in items.items() if count < min_item]
        if few_users:
            rows = [row for row in rows if row.user != few_users[0]]
        elif few_items:
            rows = [row for row in rows if row.item != few_items[0]]
        else:
            return rows


def expected(
    source: list[Row], *, min_rating: float | None = None, duplicates: str = "keep-first",
    min_user: int = 1, min_item: int = 1, split: str = "leave-one-out",
    valid_from: int | None = None, test_from: int | None = None,
) -> Expected:  # fmt: skip
    """What has to come out."""
    passing = [row for row in source if min_rating is None or row.rating >= min_rating]
    in_time = sorted(passing, key=lambda row: row.time)  # stable: equal times as in the source
    once = without_duplicates(in_time, duplicates)
    if split == "time":
        first = valid_from if valid_from is not None else test_from
        assert first is not None
        train = [row for row in once if row.time < first]
        left = core(train, min_user, min_item)
        no_users = {row.user for row in train} - {row.user for row in left}
        no_items = {row.item for row in train} - {row.item for row in left}
        kept = [row for row in once if row.user not in no_users and row.item not in no_items]
    else:
        kept = left = core(once, min_user, min_item)
    users = [one for one in dict.fromkeys(row.user for row in source)
             if any(row.user == one for row in kept)]  # fmt: skip
    items = [one for one in dict.fromkeys(row.item for row in source)
             if any(row.item == one for row in kept)]  # fmt: skip
    sequences = []
    for user in users:
        own = [row for row in kept if row.user == user]
        parts = [0] * len(own)
        if split == "leave-one-out" and len(own) >= 3:
            parts[-1], parts[-2] = 2, 1
        if split == "time":
            parts = [
                2 if test_from is not None and row.time >= test_from
                else 1 if valid_from is not None and row.time >= valid_from else 0
                for row in own
            ]  # fmt: skip
        sequences.append(
            [(row.item, row.time, row.rating, part) for row, part in zip(own, parts, strict=True)]
        )
    flat = [one for own in sequences for one in own]
    trained = {item for item, _, _, part in flat if part == 0}
    counts = {
        "users": len(users),
        "items": len(items),
        "interactions": len(kept),
        "cold_items": len(set(items) - trained),
        "cold_rows": sum(item not in trained for item, _, _, _ in flat),
        "new_users": sum(all(part for _, _, _, part in own) for own in sequences),
        **{name: sum(one[3] == part for one in flat)
           for part, name in enumerate(("train", "valid", "test"))},
    }  # fmt: skip
    return Expected(users, items, sequences, counts)
