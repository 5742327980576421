"""Makes TimesFM trees of any size with random values and PAXml's names, and their checkpoints."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.converters.synthetic import write_step

Params = dict[str, np.ndarray]


@dataclass(frozen=True)
class Sizes:
    """L, D, F, N, P, H, Q and the number of frequencies."""

    layers: int = 2
    width: int = 12
    hidden: int = 20
    heads: int = 3
    patch: int = 4
    horizon: int = 8
    quantiles: int = 9
    frequencies: int = 3


def shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Leaf below the parameters -> shape, as the specification of the checkpoints lists them."""
    wide, hidden, heads = sizes.width, sizes.hidden, (sizes.heads, sizes.width // sizes.heads)
    found: dict[str, tuple[int, ...]] = {"freq_emb/emb_var": (sizes.frequencies, wide)}
    if not sizes.frequencies:
        found = {}
    ends = {
        "input_ff_layer": (2 * sizes.patch, wide),
        "horizon_ff_layer": (wide, sizes.horizon * (1 + sizes.quantiles)),
    }
    for name, (first, last) in ends.items():
        for part, shape in (
            ("hidden", (first, hidden)), ("output", (hidden, last)), ("residual", (first, last))
        ):  # fmt: skip
            found[f"{name}/{part}_layer/linear/w"] = shape
            found[f"{name}/{part}_layer/bias/b"] = shape[1:]
    for layer in range(sizes.layers):
        place = f"stacked_transformer_layer/x_layers_{layer}"
        found[f"{place}/layer_norm/scale"] = (wide,)
        for name in ("query", "key", "value"):
            found[f"{place}/self_attention/{name}/w"] = (wide, *heads)
            found[f"{place}/self_attention/{name}/b"] = heads
        found[f"{place}/self_attention/post/w"] = (wide, *heads)
        found[f"{place}/self_attention/post/b"] = (wide,)
        found[f"{place}/self_attention/per_dim_scale/per_dim_scale"] = heads[1:]
        found[f"{place}/ff_layer/layer_norm/scale"] = (wide,)
        found[f"{place}/ff_layer/layer_norm/bias"] = (wide,)
        for name, shape in (("ffn_layer1", (wide, hidden)), ("ffn_layer2", (hidden, wide))):
            found[f"{place}/ff_layer/{name}/linear/w"] = shape
            found[f"{place}/ff_layer/{name}/bias/b"] = shape[1:]
    return found


def random_forecaster(sizes: Sizes = Sizes(), seed: int = 0) -> Params:
    """Leaf -> random values."""
    random = np.random.default_rng(seed)
    return {
        name: (0.3 * random.standard_normal(shape)).astype(np.float32)
        for name, shape in shapes(sizes).items()
    }


def with_adapters(params: Mapping[str, np.ndarray], rank: int, dora: bool = False) -> Params:
    """The tree with `lora_a`, `lora_b` and (for DoRA) `dora_m` beside each weight of the layers."""
    random = np.random.default_rng(5)
    found = dict(params)
    for name, weight in params.items():
        place, _, leaf = name.rpartition("/")
        if leaf == "w" and "x_layers_" in name:
            rows, columns = weight.shape[0], int(np.prod(weight.shape[1:]))
            found[f"{place}/lora_a"] = random.standard_normal((rows, rank)).astype(np.float32)
            found[f"{place}/lora_b"] = random.standard_normal((columns, rank)).astype(np.float32)
            if dora:
                size = (1, *weight.shape[1:])
                found[f"{place}/dora_m"] = random.standard_normal(size).astype(np.float32)
    return found


def write_forecaster(
    root: Path, params: Mapping[str, np.ndarray], prefix: str = "", step: int = 7
) -> Path:
    """Write a zarr checkpoint with only the parameters."""
    leaves = {f"mdl_vars/params/{prefix}{name}": value for name, value in params.items()}
    place = root / "checkpoints" / f"checkpoint_{step:08d}"
    write_step(place, {"step": np.asarray(step, np.uint32), **leaves})
    return place
