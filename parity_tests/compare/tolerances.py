"""A table of the differences that are allowed, with reasons, by dtype of the computation."""

from collections.abc import Mapping
from typing import Final

EXACT: Final = 0.0

# Relative to the largest magnitude of the recorded array.
TOLERANCES: Mapping[str, Mapping[str, float]] = {
    "float32": {
        # Two exact implementations sum in different orders. A sum of n products is off by about
        # sqrt(n) roundings of 6e-8; through the depth of a decoder this stays near 1e-6.
        "activations": 1e-5,
        # A scalar: the mean over positions averages most roundings out.
        "loss": 1e-6,
        # Ranks and counts are whole numbers; only a sum and one division are in float32. One label
        # at another rank changes a mean over n positions by at least 1 / (100 n).
        "metrics": 1e-6,
        # The backward pass multiplies values that already differ, and its terms cancel.
        "gradients": 1e-4,
        # One step from equal states and nearly equal gradients; but Adam divides by their size.
        "parameters": 1e-6,
        # Second moments are means of squared gradients, whose own bound is 1e-4.
        "optimizer": 1e-5,
    },
    "float64": {
        "activations": 1e-12,
        "loss": 1e-13,
        "metrics": 1e-13,
        "gradients": 1e-11,
        "parameters": 1e-13,
        "optimizer": 1e-13,
    },
}
# In half precision, XLA fuses and rounds between other operations in each version, so no fixed
# number is right. The recording's own distance from the float32 result shows how much rounding a
# value has: the mean square error of ours may be this many times as large.
HALF: Final = 1.5
MANY: Final = 64  # values needed for a reliable mean square
# A mistake of ours would also move our float32 result away from the recording. So the recording's
# mean error may be this many times ours (or one rounding), and our largest error this many times
# the recording's largest.
FURTHER: Final = 4
ROUNDING: Final = 2.0**-8
HALF_DTYPES = ("bfloat16", "float16")
QUANTUM: Final = 1  # int8 moments: a value between two steps may be rounded either way
HUGE: Final = 1e30  # masks: values beyond it must agree themselves, and do not count as magnitude
# A gradient that is zero in exact arithmetic (a key's bias) is rounding noise in both runs. If the
# recorded one is below this share of the model's largest gradient, ours only has to be below it
# too. Adam, which divides a gradient by its own size, then moves the parameter at random.
NOISE: Final = 1e-6
# In half precision a gradient is a sum of values rounded to 8 bits: if it is smaller than half a
# rounding step of the parameter's largest gradient, its sign is random.
HALF_NOISE: Final = 2.0**-9


def tolerance(kind: str, dtype: str, given: Mapping[str, float] | None = None) -> float:
    """The tolerance for a kind of value in a dtype.

    Args:
        kind: key of the table.
        dtype: dtype of the computation; half precision uses the tolerances of float32.
        given: the recording's own tolerances, which can only make the table's smaller.
    """
    table = TOLERANCES["float64" if dtype == "float64" else "float32"]
    return min(table[kind], (given or {}).get(kind, table[kind]))
