"""Low-rank adapters for the kernels of a frozen decoder (LoRA, arXiv 2106.09685).

    config = replace(config, lora=LoraConfig(rank=8, alpha=16.0))
    model = EfficientIDSModel(backbone=config, freeze_lm=True, ...)      # trains the adapters too
    params, config = merge_lora(params, config)                          # a plain model

Computes `x W + scale * (x A) B`, with `lora_a` and `lora_b` beside `kernel` in the tree. Adding
`scale * A B` to W before the product would write a second W in every layer and step, and compute a
gradient as large as W only to project it to A and B. The two extra products here are 2 rank / D of
the work of the main one. A is random and B zero, so that the first step computes the unadapted
decoder. Both are float32, whatever the dtype of the kernels. Letters: those of
`efficientids_flax.parameters`.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from efficientids_flax.backbone.kernels import parameter
from efficientids_flax.config import BackboneConfig, EfficientIDSConfig, LoraConfig
from efficientids_flax.parameters import LORA_A, LORA_B, parameter_axes
from efficientids_flax.tree import flatten, unflatten


def adaptation(config: BackboneConfig, module: nn.Module) -> LoraConfig | None:
    """The LoRA configuration if this projection is adapted, else None."""
    if config.lora is None:
        return None
    return config.lora if config.lora.adapts("/".join(module.path[-2:])) else None


def lora_factors(
    module: nn.Module, lora: LoraConfig, kernel: tuple[int, ...], form: str, dtype: Any
) -> tuple[jax.Array, jax.Array]:
    """(A, scale * B) of a projection; created at initialisation.

    Args:
        module: the projection; A and B are its parameters.
        lora: rank and scale.
        kernel: shape of its kernel.
        form: how the kernel is used: 'in' [D, *outs] -> A [D, U], B [U, *outs]; 'fused'
            [3, D, *outs] -> A [3, D, U], B [3, U, *outs]; 'out' [D, *ins] -> A [*ins, U], B [U, D].
        dtype: dtype of the result.
    """
    rank = lora.rank
    if form == "fused":
        shapes = (*kernel[:2], rank), (kernel[0], rank, *kernel[2:])
    elif form == "out":
        shapes = (*kernel[1:], rank), (rank, kernel[0])
    else:
        shapes = (kernel[0], rank), (rank, *kernel[1:])
    batch = (0,) if form == "fused" else ()
    ins = tuple(range(len(batch), len(shapes[0]) - 1))
    # Uniform within fan-in^-0.5, PyTorch's default, with which LoRA was tuned.
    init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform", ins, -1, batch)
    first = parameter(module, LORA_A, init, shapes[0], jnp.float32)
    second = parameter(module, LORA_B, nn.initializers.zeros, shapes[1], jnp.float32)
    return first.astype(dtype), (lora.scale * second).astype(dtype)


def merge_lora(
    params: Mapping[str, Any], config: BackboneConfig | EfficientIDSConfig
) -> tuple[dict[str, Any], Any]:
    """Merge LoRA adapters into the kernels: the model computes the same without adapters.

    Args:
        params: parameters of the decoder or the recommender, layers scanned or not.
        config: its configuration.

    Returns:
        (parameters, configuration) without adapters. Kernels keep their dtype; sums are computed
        in float32.

    Raises:
        ValueError: the configuration has no LoRA, or some of its parameters are missing.
    """
    backbone = config.backbone if isinstance(config, EfficientIDSConfig) else config
    if backbone.lora is None:
        raise ValueError("merge_lora: the configuration has no lora")
    axes, leaves = parameter_axes(config), flatten(params)
    wanted = [path for path in axes if path.endswith((LORA_A, LORA_B))]
    if missing := [path for path in wanted if path not in leaves]:
        raise ValueError(f"merge_lora: parameters are missing: {', '.join(sorted(missing))}")
    for path in wanted:
        place, _, name = path.rpartition("/")
        if name == LORA_B:
            continue
        names = [f"{place}/{leaf}" for leaf in (LORA_A, LORA_B, "kernel")]
        first, second, kernel = ("".join(letter for letter, _ in axes[name]) for name in names)
        one, other, base = (jax.device_put(leaves[name]) for name in names)
        # einsum accepts no digits as axis names.
        form = f"{first},{second}->{kernel}".replace("3", "C")
        added = jnp.einsum(form, one.astype(jnp.float32), other.astype(jnp.float32))
        merged = base.astype(jnp.float32) + backbone.lora.scale * added
        leaves[names[2]] = merged.astype(base.dtype)
        del leaves[names[0]], leaves[names[1]]
    plain = replace(backbone, lora=None)
    if isinstance(config, EfficientIDSConfig):
        plain = replace(config, backbone=plain)
    return unflatten(leaves), plain
