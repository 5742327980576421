"""How many floating-point operations devices can do, for the share that a run reaches (MFU)."""

from collections.abc import Mapping

import jax

# fmt: off
PEAK_FLOPS: Mapping[str, float] = {
    # kind of device, as jax names it (prefix)    bfloat16, dense, a second; vendors' data sheets
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
    """Of all devices, bfloat16; None for a kind that is not in the table."""
    kind = jax.devices()[0].device_kind
    rates = [rate for name, rate in PEAK_FLOPS.items() if kind.startswith(name)]
    return rates[0] * jax.device_count() if rates else None
