"""Floating-point operations of a step, and peak rates of devices; their ratio is the MFU.

The operations of a step are counted in its jaxpr. As usual only multiplications and additions of
matrix products and convolutions count. (XLA's own count takes the body of a loop, such as that over
scanned layers, only once.) What rematerialisation recomputes is counted again.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax

# fmt: off
PEAK_FLOPS: Mapping[str, float] = {
    # kind of device, as jax names it (prefix)    dense bfloat16 FLOP/s, from vendors' data sheets
    "NVIDIA H100":                                989e12,
    "NVIDIA H200":                                989e12,
    "NVIDIA A100":                                312e12,
    "NVIDIA L4":                                  121e12,
    "Tesla V100":                                 125e12,
    "Tesla T4":                                    65e12,
    "TPU v6":                                     918e12,
    "TPU v5p":                                    459e12,
    "TPU v5":                                     197e12,
    "TPU v4":                                     275e12,
    "TPU v3":                                     123e12,
}
# fmt: on


def peak_flops() -> float | None:
    """Peak bfloat16 FLOP/s of all devices together; None for a kind that is not in the table."""
    kind = jax.devices()[0].device_kind
    rates = [rate for name, rate in PEAK_FLOPS.items() if kind.startswith(name)]
    return rates[0] * jax.device_count() if rates else None


def operations(jaxpr: Any) -> float:
    """Floating-point operations of a jaxpr's matrix products, all devices together.

    Args:
        jaxpr: from `jax.make_jaxpr` or `jax.jit(...).trace(...).jaxpr`. A loop with an unknown
            number of iterations counts once, a condition by its most expensive branch.
    """
    total = 0.0
    for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        name, inner = eqn.primitive.name, [operations(part) for part in _parts(eqn.params)]
        if name == "dot_general":
            (axes, _), _ = eqn.params["dimension_numbers"]
            shape = eqn.invars[0].aval.shape
            total += 2.0 * eqn.outvars[0].aval.size * math.prod(shape[axis] for axis in axes)
        elif name == "conv_general_dilated":
            kernel = eqn.invars[1].aval
            features = kernel.shape[eqn.params["dimension_numbers"].rhs_spec[0]]
            total += 2.0 * eqn.outvars[0].aval.size * kernel.size / features
        elif name == "scan":
            total += eqn.params["length"] * sum(inner)
        elif name == "cond":
            total += max(inner, default=0.0)
        elif name == "shard_map":
            total += eqn.params["mesh"].size * sum(inner)
        else:
            total += sum(inner)
    return total


def _parts(params: Mapping[str, Any]) -> Iterator[Any]:
    """The jaxprs among the parameters of an equation."""
    for value in params.values():
        for part in value if isinstance(value, list | tuple) else (value,):
            if hasattr(getattr(part, "jaxpr", part), "eqns"):
                yield part
