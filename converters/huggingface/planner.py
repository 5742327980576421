"""Makes the plan for a pretrained model: names, shapes and operations; no values are read."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from converters.arrays import Cast
from converters.errors import CheckpointError, MappingError
from converters.huggingface.files import Pretrained
from converters.huggingface.mapping import map_tensors
from converters.huggingface.tables import TABLES, TensorTable
from converters.plan import Plan, PlannedLeaf, planned
from converters.rules import RuledTree
from converters.zarr import dtype_named
from efficientids_flax.backbone.presets import (
    UnsupportedConfigError,
    config_of,
    says_no_head,
    text_part,
)
from efficientids_flax.config import BackboneConfig
from efficientids_flax.config.parts import DType
from efficientids_flax.stored import Config
from efficientids_flax.stored.settings import document

AUTO = "auto"  # in place of a dtype: that of the parameters
FAMILY = "transformer_lm"  # our family; the manifest names the original one


@dataclass(frozen=True)
class PretrainedOptions:
    """Options for a pretrained model.

    Attributes:
        dtype: dtype of the parameters and the computation; None: parameters keep their stored
            dtype, and the computation has the dtype in `config.json`.
        scan_layers: stack layers on a leading axis, for a decoder that scans them.
        ignore_keys: keys of `config.json` to treat as missing.
    """

    dtype: str | None = None
    scan_layers: bool = False
    ignore_keys: Collection[str] = ()


def plan_pretrained(
    model: Pretrained, options: PretrainedOptions = PretrainedOptions()
) -> tuple[BackboneConfig, Plan]:
    """Plan the conversion of a pretrained model.

    Args:
        model: the open model; none of its tensors are read.
        options: the user's choices.

    Returns:
        The configuration of our decoder, and the plan, whose targets begin with 'params/'.

    Raises:
        ConversionError: the family or a setting is not supported, or tensors do not fit.
    """
    check_dtype(options.dtype)
    notes = list(model.notes)
    try:
        kind, _, text = text_part(model.config)
        config = config_of(model.config, options.ignore_keys, notes)
        if options.scan_layers:
            config = _scanned(config)
    except ValueError as error:
        raise MappingError(f"{model.folder}: {error}") from error
    config, tree = _mapped(model, TABLES[kind], config, notes, options.dtype)
    leaves = planned(tree.leaves, "params/")
    if AUTO in (text.get("dtype"), text.get("torch_dtype")):
        config = replace(config, dtype=_widest(leaves).name)
    if options.dtype is not None:
        leaves = cast(leaves, dtype_named(options.dtype))
        config = replace(config, dtype=options.dtype)
    config = replace(config, param_dtype=_widest(leaves).name)
    return config, Plan(
        source=str(model.folder),
        step=None,
        layout=f"HuggingFace {kind}, {model.layout}",
        family=FAMILY,
        leaves=tuple(leaves),
        ignored=tree.ignored,
        config=document(Config(FAMILY, config, None)),
        provenance={"model": {"config.json": dict(model.config)}, "optimizer": {}},
        rules=tuple(dict.fromkeys(str(leaf.rule) for leaf in tree.leaves)),
        notes=tuple(notes),
    )


def _mapped(
    model: Pretrained,
    table: TensorTable,
    config: BackboneConfig,
    notes: list[str],
    dtype: str | None,
) -> tuple[BackboneConfig, RuledTree]:
    """Map the parameters; the index must be correct for every tensor that is needed."""
    body = says_no_head(model.config)
    quantization = model.config.get("quantization_config")
    how = {"body": body, "notes": notes, "quantization": quantization, "dtype": dtype}
    try:
        config, tree = map_tensors(model.tensors, table, config, **how)
    except MappingError as error:
        absent = [slip for name, slip in model.slips.items() if name not in model.tensors]
        raise MappingError("\n  ".join([str(error), *absent[:20]])) from error
    left = {name for name, _ in tree.ignored}
    wrong = [
        slip for name, slip in model.slips.items() if name in model.tensors and name not in left
    ]
    if wrong:
        raise CheckpointError("\n  ".join(wrong[:20]))
    return config, tree


def check_dtype(dtype: str | None) -> None:
    """Raise `MappingError` for a dtype that parameters cannot be cast to."""
    if dtype is not None and dtype not in get_args(DType):
        known = ", ".join(get_args(DType))
        raise MappingError(f"dtype {dtype}: parameters can be cast to {known}")


def _widest(leaves: Sequence[PlannedLeaf]) -> np.dtype:
    return max((leaf.dtype for leaf in leaves), key=lambda dtype: dtype.itemsize)


def cast(leaves: Sequence[PlannedLeaf], dtype: np.dtype) -> list[PlannedLeaf]:
    """The leaves, cast to `dtype` if they have another."""
    return [
        leaf
        if leaf.dtype == dtype
        else PlannedLeaf(leaf.target, Cast(leaf.array, dtype), _with_cast(leaf, dtype.name))
        for leaf in leaves
    ]


def _with_cast(leaf: PlannedLeaf, dtype: str) -> str:
    steps = [] if leaf.operation == "rename" else [leaf.operation]
    return "; ".join([*steps, f"cast {dtype}"])


def _scanned(config: BackboneConfig) -> BackboneConfig:
    """The configuration with its layers in blocks, as small as the pattern of layers allows."""
    turned = [layer in config.no_rotary_layers for layer in range(config.num_layers)]
    types = config.layer_types or ("",) * config.num_layers
    routed = [config.moe is not None and layer in config.moe.layers for layer in range(len(turned))]
    settings = [
        [
            (setting.key, setting.value)
            for setting in config.layer_settings
            if layer in setting.layers
        ]
        for layer in range(config.num_layers)
    ]
    kinds = list(zip(types, turned, routed, settings, strict=True))
    for size in range(1, config.num_layers + 1):
        if config.num_layers % size == 0 and kinds == kinds[:size] * (config.num_layers // size):
            return replace(config, scan_layers=True, layers_per_block=size)
    raise UnsupportedConfigError("scan_layers: the layers do not repeat")
