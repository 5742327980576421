"""Maps the tensors of `TimesFmModelForPrediction` to our parameters, and back, with one table.

Letters: D model width, F hidden width, N heads, H head width, P points in a patch, O numbers in the
forecast of one patch, G frequencies.
"""

import math
from collections.abc import Mapping

import numpy as np

from converters.arrays import Array, Raised, Source, held
from converters.errors import MappingError
from converters.rules import Ignore, Mapped, Rule, apply_rules
from efficientids_flax.config import TimesFMConfig

TURNED = ("transpose 1 0", "transpose 1 0")
HEADS_IN = ("transpose 1 0; split 1 N H", "merge 1; transpose 1 0")
HEADS_OUT = ("split 1 N H", "merge 1")
HEADS = ("split 0 N H", "merge 0")
SAME = ("", "")
LAYERS, OURS = "decoder.layers.{i}.", "decoder/layers_{i}/"

# fmt: off
BLOCKS = (
    # ours, of a block       theirs                      shape          what is done: in, out
    ("hidden/kernel",        "input_layer.weight",       TURNED),       # [F, I]
    ("hidden/bias",          "input_layer.bias",         SAME),         # [F]
    ("output/kernel",        "output_layer.weight",      TURNED),       # [O, F]
    ("output/bias",          "output_layer.bias",        SAME),         # [O]
    ("residual/kernel",      "residual_layer.weight",    TURNED),       # [O, I]
    ("residual/bias",        "residual_layer.bias",      SAME),         # [O]
)
LAYER = (
    # ours, of a layer       theirs
    ("attention_norm/scale", "input_layernorm.weight",   SAME),         # [D], as it is
    ("attention/query/kernel", "self_attn.q_proj.weight", HEADS_IN),    # [N H, D]
    ("attention/query/bias", "self_attn.q_proj.bias",    HEADS),        # [N H]
    ("attention/key/kernel", "self_attn.k_proj.weight",  HEADS_IN),
    ("attention/key/bias",   "self_attn.k_proj.bias",    HEADS),
    ("attention/value/kernel", "self_attn.v_proj.weight", HEADS_IN),
    ("attention/value/bias", "self_attn.v_proj.bias",    HEADS),
    ("attention/per_dim_scale", "self_attn.scaling",     SAME),         # [H]
    ("attention/out/kernel", "self_attn.o_proj.weight",  HEADS_OUT),    # [D, N H], not turned
    ("attention/out/bias",   "self_attn.o_proj.bias",    SAME),         # [D]
    ("mlp_norm/scale",       "mlp.layer_norm.weight",    SAME),         # [D], one more than ours
    ("mlp_norm/bias",        "mlp.layer_norm.bias",      SAME),
    ("mlp/up/kernel",        "mlp.gate_proj.weight",     TURNED),       # [F, D]
    ("mlp/up/bias",          "mlp.gate_proj.bias",       SAME),
    ("mlp/down/kernel",      "mlp.down_proj.weight",     TURNED),       # [D, F]
    ("mlp/down/bias",        "mlp.down_proj.bias",       SAME),
)
PREFIXES = {"input_block/": "decoder.input_ff_layer.", "horizon_block/": "horizon_ff_layer."}
ROWS = (
    ("frequency_embedding/embedding", "decoder.freq_emb.weight", SAME),  # [G, D]
    *((ours + part, theirs + name, how) for ours, theirs in PREFIXES.items()
      for part, name, how in BLOCKS),
    *((OURS + part, LAYERS + name, how) for part, name, how in LAYER),
)
# fmt: on
TIMESCALES = "decoder.position_emb.inv_timescales"  # [D/2], stored although it can be computed
PLUS_ONE = "/mlp_norm/scale", ".mlp.layer_norm.weight"  # ours is stored minus 1


def parameters_of(
    tensors: Mapping[str, Array], config: TimesFMConfig
) -> tuple[tuple[Mapped, ...], tuple[tuple[str, str], ...]]:
    """Make our parameters from their tensors; also (name, reason) of the tensors left out.

    Raises:
        MappingError: tensors are unknown, or have other shapes.
    """
    rules = [Rule(ours, theirs, _sized(how[0], config)) for ours, theirs, how in ROWS]
    ignores = (Ignore(TIMESCALES, "computed from the time scales"),)
    tree = apply_rules(tensors, rules, ignores)
    leaves = (
        Mapped(leaf.target, Raised(leaf.array, -1.0), leaf.rule)
        if leaf.target.endswith(PLUS_ONE[0])
        else leaf
        for leaf in tree.leaves
    )
    found = tuple(leaves)
    return (_stacked(found) if config.scan_layers else found), tree.ignored


def tensors_of(params: Mapping[str, Array], config: TimesFMConfig) -> tuple[Mapped, ...]:
    """Make their tensors from our parameters, including the time scales of positions.

    Raises:
        MappingError: there is no tensor for some parameters.
    """
    if config.scan_layers:
        params = _apart(params)
    rules = [Rule(theirs, ours, _sized(how[1], config)) for ours, theirs, how in ROWS]
    tree = apply_rules(params, rules)
    found = [
        Mapped(leaf.target, Raised(leaf.array, 1.0), leaf.rule)
        if leaf.target.endswith(PLUS_ONE[1])
        else leaf
        for leaf in tree.leaves
    ]
    if config.use_positional_embedding:
        rule = Rule(TIMESCALES, TIMESCALES)
        found.append(
            Mapped(TIMESCALES, Source(held(TIMESCALES, time_scales(config), "computed")), rule)
        )
    return tuple(found)


def time_scales(config: TimesFMConfig) -> np.ndarray:
    """The factors of positions, float32 [D/2]."""
    count = config.model_dims // 2
    low, high = config.position_min_timescale, config.position_max_timescale
    step = math.log(high / low) / max(count - 1, 1)
    return (low * np.exp(-step * np.arange(count, dtype=np.float64))).astype(np.float32)


def _sized(op: str, config: TimesFMConfig) -> str:
    return op.replace("N H", f"{config.num_heads} {config.head_dim}")


def _apart(params: Mapping[str, Array]) -> dict[str, Array]:
    """Unstack scanned layers."""
    apart = Rule("decoder/layers_{i}/{rest*}", "decoder/layers/{rest*}", "unstack 0")
    stacked = {path: array for path, array in params.items() if path.startswith("decoder/layers/")}
    single = {leaf.target: leaf.array for leaf in apply_rules(stacked, (apart,)).leaves}
    return {path: a for path, a in params.items() if path not in stacked} | single


def _stacked(leaves: tuple[Mapped, ...]) -> tuple[Mapped, ...]:
    """Stack the layers on a leading axis."""
    parts = {leaf.target: leaf for leaf in leaves if leaf.target.startswith("decoder/layers_")}
    names = {path.split("/", 2)[2] for path in parts}
    rules = [
        Rule(f"decoder/layers/{name}", f"decoder/layers_{{i}}/{name}", "stack 0") for name in names
    ]
    made = apply_rules({path: leaf.array for path, leaf in parts.items()}, rules).leaves
    return (*(leaf for leaf in leaves if leaf.target not in parts), *made)


def checked(problems: list[str], where: str) -> None:
    """Raise a `MappingError` that lists the problems, if there are any."""
    if problems:
        head = f"{where}: {len(problems)} problem(s):"
        raise MappingError("\n  ".join([head, *problems[:20]]))
