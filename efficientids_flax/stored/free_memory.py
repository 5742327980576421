"""How much memory is free, and whether a checkpoint's parameters fit into it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from efficientids_flax.text import size_text

WIDTHS = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
"""Dtype -> bytes per number."""


def check_parameters(
    path: str,
    leaves: Mapping[str, Any],
    shardings: Mapping[str, Any],
    dtype: str | None = None,
    *,
    refuse: bool = True,
) -> None:
    """Check that a checkpoint's parameters fit into the memory of their devices, or of the host.

    Args:
        path: path of the checkpoint, for the message.
        leaves: path -> anything with the shape and dtype of the stored leaf.
        shardings: path -> sharding of each leaf; None is the host.
        dtype: dtype that floats are cast to after loading, leaf by leaf.
        refuse: raise; otherwise warn.

    Raises:
        MemoryError: a device or the host has less free memory than needed, and `refuse` is set;
            names both figures and what to do.
    """
    needs: dict[Any, int] = {}
    for name, leaf in leaves.items():
        sharding = shardings[name]
        devices = [None] if sharding is None else list(sharding.addressable_devices)
        shape = leaf.shape if sharding is None else sharding.shard_shape(leaf.shape)
        width = leaf.dtype.itemsize
        if dtype is not None and leaf.dtype.name in WIDTHS:
            width = max(width, WIDTHS[dtype])
        for device in devices:
            # All devices of the CPU platform share the host's memory.
            place = None if device is None or device.platform == "cpu" else device
            needs[place] = needs.get(place, 0) + math.prod(shape) * width
    for place, needed in needs.items():
        free = available_memory(place)
        if free is None or needed <= free:
            continue
        where = "this host" if place is None else str(place)
        message = (
            f"{path}: the parameters take {size_text(needed)} on {where}, and "
            f"{size_text(free)} are free there. Split them over devices "
            "(shardings=parameter_shardings(config, mesh)), take them in half precision "
            "(convert-paxml --dtype bfloat16), or free memory; "
            "memory='ignore' tries all the same."
        )
        if refuse:
            raise MemoryError(message)
        warnings.warn(message, ResourceWarning, stacklevel=3)


def available_memory(device: Any = None) -> int | None:
    """Free bytes on a device or, without one, on the host; None if not reported.

    On the host: Linux' MemAvailable, or what is left of the container's limit if that is less.
    """
    if device is not None:
        stats = device.memory_stats() or {}
        if "bytes_limit" not in stats:
            return None
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    found = [_meminfo(Path("/proc/meminfo")), _container(Path("/sys/fs/cgroup"))]
    return min((value for value in found if value is not None), default=None)


def _meminfo(path: Path) -> int | None:
    """`MemAvailable` of Linux."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _container(root: Path) -> int | None:
    """Bytes left of a control group's limit, version 2 or 1; file cache counts as free."""
    for limit, used, stat, cache in (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat",
         "total_inactive_file"),
    ):  # fmt: skip
        try:
            most, now = ((root / name).read_text().strip() for name in (limit, used))
            found = dict(line.split() for line in (root / stat).read_text().splitlines())
        except (OSError, ValueError):
            continue
        if most.isdigit() and now.isdigit() and int(most) < 1 << 60:  # else there is no limit
            return int(most) - int(now) + int(found.get(cache, 0))
    return None
