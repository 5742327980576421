"""Estimates the size of an output before it is written."""

from converters.plan import Plan
from converters.stores import LocalStore, StorageError, open_store


def estimated_size(plan: Plan, source: str) -> int:
    """Estimate the bytes that the output will take from how well the source is compressed.

    Floats compress by some 8 %, moments that are still zero by far more. The source holds the same
    values in (mostly) the same codec, so its own compression is the best estimate.
    """
    values = sum(
        {s.spec.path: s.spec.nbytes for t in plan.leaves for s in t.array.leaves()}.values()
    )
    try:
        stored = _stored_size(source)
    except StorageError:
        stored = None
    ratio = 1.0 if not stored or not values else min(stored / values, 1.0)
    return int(plan.nbytes * ratio)


def _stored_size(url: str) -> int | None:
    """Bytes of all files of a local checkpoint; None for a remote one."""
    store = open_store(url)
    root = store.local_path()
    if not isinstance(store, LocalStore) or root is None:
        return None
    if root.is_file():
        return root.stat().st_size
    return sum(map(store.size, store.keys()))
