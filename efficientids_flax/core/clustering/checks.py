"""Finds what is wrong with clustering tables, item by item.

Dimensions: I items, K clusters, M slots per cluster, E item-embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

SHOWN = 5  # wrong items named per problem; the rest is counted.


class ClusteringError(ValueError):
    """Clustering tables contradict each other, or a file has none; lists every problem."""


def find_problems(
    cluster_of: np.ndarray,
    members: np.ndarray,
    slot_of: np.ndarray,
    means: np.ndarray | None,
) -> list[str]:
    """Problems that keep the tables from being a valid clustering; empty if there are none.

    Args:
        cluster_of: [I] integer, the cluster of each item.
        members: [K, M] integer, the items of each cluster, then padding (any negative).
        slot_of: [I] integer, where the item stands in its cluster's row of `members`.
        means: [K, E] floating, or None.

    Returns:
        One line per kind of problem. Contents are checked only if dtypes, ranks and shapes are
        right.
    """
    problems = _shape_problems(cluster_of, members, slot_of, means)
    if problems:
        return problems
    is_item = members >= 0  # [K, M]
    problems = [
        *_range_problems(cluster_of, members, slot_of),
        *_padding_problems(is_item),
        *_placement_problems(cluster_of, members, slot_of, is_item),
    ]
    if means is not None:
        broken = np.flatnonzero(~np.isfinite(means).all(axis=1))
        problems += _problem(
            broken, "clusters have a mean that is not finite", lambda k: f"cluster {k}"
        )
    return problems


def _shape_problems(
    cluster_of: np.ndarray, members: np.ndarray, slot_of: np.ndarray, means: np.ndarray | None
) -> list[str]:
    problems = []
    tables = (
        ("cluster_of", cluster_of, 1, "[I] integers"),
        ("members", members, 2, "[K, M] integers"),
        ("slot_of", slot_of, 1, "[I] integers"),
        ("means", means, 2, "[K, E] floats"),
    )
    for name, table, rank, wanted in tables:
        if table is None:
            continue
        right_kind = is_float(table.dtype) if name == "means" else table.dtype.kind in "iu"
        if not right_kind or table.ndim != rank:
            found = f"{list(table.shape)} of {table.dtype}"
            problems.append(f"{name} is {found}, expected {wanted}.")
        elif table.size == 0:
            problems.append(f"{name} is empty: {list(table.shape)}.")
    if problems:
        return problems
    if cluster_of.shape != slot_of.shape:
        problems.append(
            f"cluster_of has {len(cluster_of)} items and slot_of has {len(slot_of)}; "
            "expected as many."
        )
    if means is not None and len(means) != len(members):
        problems.append(
            f"members has {len(members)} clusters and means has {len(means)}; expected as many."
        )
    largest = np.iinfo(np.int32).max
    problems += [
        f"{name} is {list(table.shape)}: more than {largest} ids do not fit int32."
        for name, table in (("cluster_of", cluster_of), ("members", members))
        if max(table.shape) > largest
    ]
    return problems


def _range_problems(cluster_of: np.ndarray, members: np.ndarray, slot_of: np.ndarray) -> list[str]:
    items, (clusters, slots) = len(cluster_of), members.shape
    rows, columns = np.nonzero(members >= items)
    return [
        *_problem(
            np.flatnonzero((cluster_of < 0) | (cluster_of >= clusters)),
            f"items have a cluster outside 0 to {clusters - 1}",
            lambda i: f"item {i} has cluster {cluster_of[i]}",
        ),
        *_problem(
            np.flatnonzero((slot_of < 0) | (slot_of >= slots)),
            f"items have a slot outside 0 to {slots - 1}",
            lambda i: f"item {i} has slot {slot_of[i]}",
        ),
        *_problem(
            np.arange(len(rows)),
            f"entries of members are outside 0 to {items - 1}",
            lambda n: (
                f"item {members[rows[n], columns[n]]} in cluster {rows[n]}, slot {columns[n]}"
            ),
        ),
    ]


def _padding_problems(is_item: np.ndarray) -> list[str]:
    gaps = np.flatnonzero((~is_item[:, :-1] & is_item[:, 1:]).any(axis=1))
    return [
        *_problem(
            np.flatnonzero(~is_item.any(axis=1)),
            "clusters are empty (number the clusters without gaps)",
            lambda k: f"cluster {k}",
        ),
        *_problem(
            gaps,
            "clusters have padding before their last item (it belongs at the end of the row)",
            lambda k: f"cluster {k} at slot {np.argmin(is_item[k])}",
        ),
    ]


def _placement_problems(
    cluster_of: np.ndarray, members: np.ndarray, slot_of: np.ndarray, is_item: np.ndarray
) -> list[str]:
    items, (clusters, slots) = len(cluster_of), members.shape
    listed = members[is_item & (members < items)].astype(np.intp, copy=False)
    times = np.bincount(listed, minlength=items)  # [I] how often each item is in members

    inside = (cluster_of >= 0) & (cluster_of < clusters) & (slot_of >= 0) & (slot_of < slots)
    row = np.where(inside, cluster_of, 0).astype(np.intp, copy=False)
    column = np.where(inside, slot_of, 0).astype(np.intp, copy=False)
    misplaced = inside & (members[row, column] != np.arange(items))

    def placement(i: int) -> str:
        there = members[row[i], column[i]]
        held = f"holds item {there}" if there >= 0 else "is padding"
        return f"item {i} should be in cluster {row[i]} at slot {column[i]}, which {held}"

    return [
        *_problem(
            np.flatnonzero(misplaced), "items are not where cluster_of and slot_of say", placement
        ),
        *_problem(
            np.flatnonzero(times == 0), "items are in no cluster of members", lambda i: f"item {i}"
        ),
        *_problem(
            np.flatnonzero(times > 1),
            "items are in members more than once",
            lambda i: f"item {i} {times[i]} times",
        ),
    ]


def is_float(dtype: np.dtype) -> bool:
    """Whether means may have this dtype: float16 to float64, or bfloat16 (no float for NumPy)."""
    return (dtype.kind == "f" and dtype.itemsize <= 8) or dtype.name == "bfloat16"


def _problem(wrong: np.ndarray, what: str, describe: Callable[[int], str]) -> list[str]:
    """[] if nothing is wrong, else one line: count, what, and the first few described."""
    if not len(wrong):
        return []
    shown: Sequence[str] = [describe(int(index)) for index in wrong[:SHOWN]]
    rest = [f"and {len(wrong) - SHOWN} more"] if len(wrong) > SHOWN else []
    return [f"{len(wrong)} {what}: {'; '.join([*shown, *rest])}."]
