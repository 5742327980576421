"""Makes `OUT/manifest.json`: enough to check every leaf again without this program."""

import datetime
import importlib.metadata
import platform
from typing import Any

from converters.plan import Plan
from converters.write.jobs import Record

SCHEMA_VERSION = 1
PACKAGES = ("efficientids-flax", "numpy", "ml_dtypes", "tensorstore", "zstandard")


def manifest(plan: Plan, records: dict[str, Record], options: dict[str, Any]) -> dict[str, Any]:
    """Make the manifest of a finished conversion.

    Digests are `sha256(array.tobytes())` of the little-endian values in C order. If chunks were
    copied without decoding, `stored_sha256` is the digest of the compressed chunks, in C order.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), **_versions()},
        "source": {"url": plan.source, "step": plan.step, "layout": plan.layout},
        "family": plan.family,
        "options": options,
        "config": plan.provenance,
        "rules": list(plan.rules),
        "notes": list(plan.notes),
        "assumed": plan.assumed,
        "leaves": [
            records[leaf.target] | {"verified": _verified(records[leaf.target])}
            for leaf in plan.leaves
        ],
        "ignored": [{"source": path, "reason": reason} for path, reason in plan.ignored],
    }


def _verified(record: Record) -> str:
    return "read back" if record["verified"] else "not checked"


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed as a package"
    return found
