"""What may differ, and why: one table, by dtype of the computation."""

from collections.abc import Mapping
from typing import Final

EXACT: Final = 0.0

# Relative to the largest magnitude of the recorded array.
TOLERANCES: Mapping[str, Mapping[str, float]] = {
    "float32": {
        # Two exact implementations sum in different orders. A sum of n products is off by about
        # sqrt(n) roundings of 6e-8; through a decoder's depth that stays near 1e-6.
        "activations": 1e-5,
        # A scalar: the mean over positions takes most of the roundings out.
        "loss": 1e-6,
        # Ranks and counts are whole numbers; what is left is a sum and one division in float32. One
        # label at another rank moves a mean over n positions by at least 1 / (100 n).
        "metrics": 1e-6,
        # The backward pass multiplies by values that differ already, and cancels.
        "gradients": 1e-4,
        # One step from equal states and nearly equal gradients; Adam divides by their own size.
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
# In half precision XLA fuses and rounds between other operations in each version, so that no fixed
# number is right. The recording's own distance from the float32 result says how much rounding there
# is in a value: ours may be off from it by at most this many times that, in the mean square.
HALF: Final = 1.5
MANY: Final = 64  # values whose mean square is certain enough for that
# A mistake of ours would also move the float32 result, away from the recording alone: its mean
# error may be this many times ours (or one rounding), our largest this many times its largest.
FURTHER: Final = 4
ROUNDING: Final = 2.0**-8
HALF_DTYPES = ("bfloat16", "float16")
QUANTUM: Final = 1  # int8 moments: a value on the border of rounding goes either way
HUGE: Final = 1e30  # masks; beyond it values must agree as values, and count for no magnitude
# A gradient that is zero in exact arithmetic (a key's bias) is rounding noise in both. Below this
# share of the largest gradient of the model, ours has to be below it too, and no more; and Adam,
# which divides a gradient by its own size, then moves the parameter by chance.
NOISE: Final = 1e-6
# In half precision a gradient is a sum of values that were rounded to 8 bits: where it is smaller
# than half of such a step of the parameter's largest gradient, its sign is chance.
HALF_NOISE: Final = 2.0**-9


def tolerance(kind: str, dtype: str, given: Mapping[str, float] | None = None) -> float:
    """What is allowed for a kind of value in a float dtype.

    Args:
        kind: key of the table.
        dtype: of the computation; half precision has float32's, for values that are compared in it.
        given: the recording's own tolerances, which may only be smaller than the table's.
    """
    table = TOLERANCES["float64" if dtype == "float64" else "float32"]
    return min(table[kind], (given or {}).get(kind, table[kind]))
