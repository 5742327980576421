"""Plans the conversion of a folder of `transformers` to our checkpoint, and the way back."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from converters.arrays import Cast, Leaf, Source
from converters.errors import MappingError
from converters.huggingface.files import Pretrained
from converters.huggingface.forecasters.settings import MODEL_TYPE, read_settings, write_settings
from converters.huggingface.forecasters.table import checked, parameters_of, tensors_of
from converters.paxml import is_float
from converters.plan import Plan, PlannedLeaf, planned
from converters.zarr import dtype_named
from efficientids_flax.config import TimesFMConfig
from efficientids_flax.parameters import shape_problems
from efficientids_flax.stored import Config
from efficientids_flax.stored.settings import document

FAMILY, ITEM = "timesfm", "model"


def plan_forecaster(
    model: Pretrained, dtype: str | None, scan_layers: bool, ignore_keys: Collection[str]
) -> Plan:
    """Plan the conversion of a folder of transformers to our checkpoint.

    Args:
        model: the open model; none of its tensors are read.
        dtype: dtype of parameters and computation; None: the stored dtype.
        scan_layers: whether layers are stacked on a leading axis.
        ignore_keys: keys of `config.json` to treat as missing.

    Raises:
        ConversionError: a setting is not supported, or tensors do not fit.
    """
    notes: list[str] = []
    try:
        config = read_settings(model.config, ignore_keys, notes)
        config = replace(config, scan_layers=scan_layers, **({"dtype": dtype} if dtype else {}))
        arrays = {name: Source(leaf) for name, leaf in model.tensors.items()}
        mapped, ignored = parameters_of(arrays, config)
    except (MappingError, ValueError) as error:
        raise MappingError(f"{model.folder}: {error}") from error
    checked(shape_problems(config, {leaf.target: leaf.array.shape for leaf in mapped}),
            f"{model.folder}: tensors and config.json do not fit")  # fmt: skip
    checked([f"{leaf.target}: holds {leaf.array.dtype}, expected floats" for leaf in mapped
             if not is_float(leaf.array.dtype)], str(model.folder))  # fmt: skip
    # The scale of a LayerNorm was computed in float32; it is stored in the dtype of the rest.
    stored = dtype_named(dtype) if dtype else next(iter(model.tensors.values())).spec.dtype
    leaves = _cast(planned(mapped, "params/"), stored.name)
    config = replace(config, param_dtype=stored.name)
    return Plan(
        source=str(model.folder),
        step=None,
        layout=f"HuggingFace {MODEL_TYPE}, {model.layout}",
        family=FAMILY,
        leaves=tuple(leaves),
        ignored=ignored,
        config=document(Config(FAMILY, config, None)),
        provenance={"model": {"config.json": dict(model.config)}, "optimizer": {}},
        rules=tuple(dict.fromkeys(str(leaf.rule) for leaf in mapped)),
        notes=tuple(notes),
    )


def plan_forecaster_folder(
    url: str,
    config: TimesFMConfig,
    params: Mapping[str, Leaf],
    *,
    known: Mapping[str, Any],
    values: Mapping[str, Any],
    dtype: str | None,
    doubts: Collection[str] = (),
) -> Plan:
    """Plan the conversion of our checkpoint to a folder of transformers.

    Args:
        url: path or URL of the checkpoint.
        config: its configuration.
        params: path -> leaf.
        known: the `config.json` that it came from; empty if there is none.
        values: the user's keys of `config.json`.
        dtype: dtype to which tensors are cast; None: unchanged.
        doubts: settings of the model that were assumed, in words.

    Raises:
        MappingError: transformers cannot express the model.
    """
    notes: list[str] = []
    config = replace(config, param_dtype=dtype or config.param_dtype)
    content = write_settings(config, known, values, notes)
    mapped = tensors_of({path: Source(leaf) for path, leaf in params.items()}, config)
    leaves = _cast(planned(mapped, f"{ITEM}/"), config.param_dtype)
    return Plan(
        source=url,
        step=None,
        layout="converted checkpoint",
        family=FAMILY,
        leaves=tuple(leaves),
        ignored=(),
        config=content,
        provenance={"model": config.to_dict()},
        rules=(),
        notes=(*doubts, *notes),
    )


def _cast(leaves: list[PlannedLeaf], dtype: str) -> list[PlannedLeaf]:
    wanted = dtype_named(dtype)
    return [
        leaf
        if leaf.dtype == wanted
        else PlannedLeaf(leaf.target, Cast(leaf.array, wanted), f"{leaf.operation}; cast {dtype}")
        for leaf in leaves
    ]
