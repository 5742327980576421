"""The verdict on one value: how far it is off, and how far it may be."""

from dataclasses import replace

from parity_tests.compare.difference import Difference, Distance

EXACT_DTYPE = "float32"  # what half precision is measured from


def judged(base: Difference, found: Distance, allowed: float) -> Difference:
    """A difference with its numbers and its verdict."""
    verdict = "ok" if found.relative <= allowed else "DIFFERS"
    return replace(
        base,
        verdict=verdict,
        absolute=found.absolute,
        relative=found.relative,
        ulps=found.ulps,
        allowed=allowed,
        note=found.note or base.note,
    )
