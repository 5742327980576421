"""Makes the plan of a conversion: names, shapes and operations; no values are read."""

from collections.abc import Mapping
from dataclasses import replace
from typing import get_args

import numpy as np

from converters.arrays import Array, Cast, FlatLeaf, Leaf, LeafSpec, Source
from converters.errors import CheckpointError, MappingError, UnclearModelError
from converters.paxml import Checkpoint, is_float, open_checkpoint
from converters.paxml.infer import infer_optimizer
from converters.paxml.state import (
    ConvertedOptimizer,
    convert_optimizer,
    optimizer_kinds,
    raw_optimizer,
)
from converters.plan.additions import with_additions
from converters.plan.job import job_dump, said_heads
from converters.plan.leaves import Plan, PlannedLeaf, planned
from converters.plan.merge import load_rules, merge, split_also
from converters.plan.model_config import (
    CONFIGURED,
    FORECASTER,
    model_config,
    named_overrides,
    origins_of,
    refuse_assumed,
    refuse_overrides,
    with_backbone,
)
from converters.plan.options import OPTIMIZER_MODES, PlanOptions
from converters.plan.publication import publication
from converters.plan.quantized import numbers_of
from converters.rules import Said, Table, generic_table, read_table, table_for, with_heads
from converters.zarr import ZarrLeaf, dtype_named
from efficientids_flax.config import OptimizerConfig
from efficientids_flax.config.parts import DType
from efficientids_flax.parameters import QUANTIZED
from efficientids_flax.settings import GIVEN
from efficientids_flax.stored import MATTERS, Config, assumed_in
from efficientids_flax.stored.settings import document

PARAMS, OPTIMIZER, EXTRA = "mdl_vars/params/", "opt_states/", "extra_state/"
CONFIG_NAMES = {"adam": "adam", "sharded_adafactor": "sharded_adafactor", "momentum": "sgd"}
TAKEN = "parameters were taken from other checkpoints: training starts anew, as in PAXml"
ABSORBED = "low-rank additions were put into the weights, which have no moments of their own"
AVERAGES = (
    "the weights are those of the last step (mdl_vars); their moving averages (ema) are another"
    " copy, and are kept in state/{place}"
)


def make_plan(checkpoint: Checkpoint, options: PlanOptions) -> Plan:
    """Plan the conversion of a checkpoint.

    Args:
        checkpoint: the open checkpoint; none of its arrays are read.
        options: the user's choices.

    Returns:
        The plan. Everything is checked that can be checked without reading values.

    Raises:
        ConversionError: the rule table does not fit, a configuration contradicts the tree, or the
            optimizer cannot be converted without a guess.
    """
    if options.optimizer not in OPTIMIZER_MODES:
        raise MappingError(f"optimizer mode '{options.optimizer}' is not of {OPTIMIZER_MODES}")
    arrays: dict[str, Array] = {path: Source(leaf) for path, leaf in checkpoint.leaves.items()}
    notes = list(checkpoint.notes)
    params = _below(arrays, PARAMS)
    if not params:
        raise CheckpointError(f"{checkpoint.url}: holds no parameters (nothing below {PARAMS})")
    params, taken = _merged(params, options.also, notes)
    params, absorbed = with_additions(params, options.keep_lora, notes)
    dump = job_dump(checkpoint, options.job_files)
    numbers, nhd_post = numbers_of(params, dump, options.dequantize, notes)
    if options.dequantize:
        params = numbers
    overrides = named_overrides(options.overrides)
    said = said_heads(dump, overrides)
    shapes = with_heads({path: array.shape for path, array in numbers.items()}, said)
    specs = {
        PARAMS + path: replace(_spec_of(array), shape=shapes[path])
        for path, array in numbers.items()
    }

    table = _table(params, options, nhd_post, said, notes)
    tree = table.apply(params)
    states = [path for path in arrays if path.startswith(OPTIMIZER)]
    kinds = optimizer_kinds(states)
    named = next((CONFIG_NAMES[kind] for kind in kinds if kind in CONFIG_NAMES), None)
    published = publication(options.experiment, table.family, specs, checkpoint, named, dump, notes)
    model, provenance = None, {}
    if table.family in CONFIGURED:
        asked_for = options.family is not None
        try:
            made = tree if numbers is params else table.apply(numbers)
            model, provenance = model_config(
                table.family, specs, dump, overrides, asked_for, made, notes, published
            )
        except UnclearModelError as error:
            asked = (options.family, options.rules, options.scan_layers, options.experiment)
            if any(wish is not None for wish in asked):
                raise
                # Under PAXml's own names, the weights are right whatever the model is.
            table = generic_table(table.family, error, notes)
            tree = table.apply(params)
    if table.family not in CONFIGURED:
        refuse_overrides(table.family, overrides)

    leaves = planned(tree.leaves, "params/")
    if options.dtype is not None:
        dtype = _float_named(options.dtype)
        leaves = [_cast(leaf, dtype) for leaf in leaves]
        if model is not None:
            model = with_backbone(model, param_dtype=dtype.name)
            key = next(key for key in provenance if key.split(".")[-1] == "param_dtype")
            provenance[key] = {"value": dtype.name, "from": GIVEN}

    ignored = [(PARAMS + path, reason) for path, reason in tree.ignored]
    ignored += [
        (PARAMS + path, "taken from another checkpoint")
        for path in taken
        if PARAMS + path in arrays
    ]
    try:
        optimizer_config, optimizer_provenance = infer_optimizer(
            dump, overrides, named, published=published, states=kinds
        )
    except UnclearModelError as error:
        notes.append(f"config.json has no optimizer: {error}")
        optimizer_config, optimizer_provenance = None, {}
    lost = absorbed and options.optimizer == "convert"
    anew = TAKEN if taken else ABSORBED if lost else None
    converted = _optimizer(arrays, table, options, optimizer_config, anew, ignored, notes)
    leaves += _rest(arrays) + planned(converted.leaves)
    ignored += converted.ignored
    notes += converted.notes

    told = {"model": provenance, "optimizer": optimizer_provenance}
    origins = origins_of(told)
    config = Config(table.family, model, optimizer_config, origins)
    trained = states and options.optimizer == "convert" and not taken
    found = assumed_in(config, MATTERS if trained else MATTERS[:-1])
    if options.strict:
        refuse_assumed(found)

    return Plan(
        source=checkpoint.url,
        step=checkpoint.step,
        layout=f"{checkpoint.layout.kind} {checkpoint.layout.version}, {checkpoint.layout.era}",
        family=table.family,
        leaves=tuple(leaves),
        ignored=tuple(ignored),
        config=document(config),
        provenance=told,
        rules=tuple(dict.fromkeys(str(leaf.rule) for leaf in [*tree.leaves, *converted.leaves])),
        notes=tuple(dict.fromkeys(notes)),
        assumed=found,
    )


def _below(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {
        path.removeprefix(prefix): array
        for path, array in arrays.items()
        if path.startswith(prefix)
    }


def _merged(
    params: dict[str, Array], also: tuple[str, ...], notes: list[str]
) -> tuple[dict[str, Array], list[str]]:
    """The parameters with those replaced or added that `--also` names, and their paths."""
    taken: list[str] = []
    for text in also:
        place, rules = split_also(text)
        other = open_checkpoint(place)
        arrays = _below(
            {path: _named(leaf, other.url) for path, leaf in other.leaves.items()}, PARAMS
        )
        params, paths = merge(params, arrays, load_rules(rules), other.url)
        notes.append(f"{len(paths)} parameters from {other.url}")
        taken += paths
    return params, taken


def _named(leaf: Leaf, url: str) -> Source:
    """A leaf of another checkpoint; its path gets the URL, for the manifest and for messages."""
    assert isinstance(leaf, ZarrLeaf | FlatLeaf)
    return Source(replace(leaf, spec=replace(leaf.spec, path=f"{url}:{leaf.spec.path}")))


def _table(
    params: Mapping[str, Array],
    options: PlanOptions,
    nhd_post: bool,
    said: Said,
    notes: list[str],
) -> Table:
    if options.rules is not None:
        rules, ignores = read_table(options.rules)
        return Table(options.family or "custom", tuple(rules), tuple(ignores))
    table, found = table_for(params, options.family, options.scan_layers, nhd_post, said)
    notes += found
    return table


def _float_named(name: str) -> np.dtype:
    """The dtype to cast parameters to."""
    if name not in get_args(DType):
        raise MappingError(
            f"--dtype {name}: parameters can be cast to {', '.join(get_args(DType))}"
        )
    return dtype_named(name)


def _cast(leaf: PlannedLeaf, dtype: np.dtype) -> PlannedLeaf:
    """The leaf cast to `dtype`, if it is floating; quantized weights and their scales are not."""
    floating = is_float(leaf.dtype)
    quantized = leaf.target.endswith((*QUANTIZED, "_quantized_scale", "_quantized_zp"))
    if not floating or quantized or leaf.dtype == dtype:
        return leaf
    steps = [] if leaf.operation == "rename" else [leaf.operation]
    return PlannedLeaf(
        leaf.target, Cast(leaf.array, dtype), "; ".join([*steps, f"cast {dtype.name}"])
    )


def _optimizer(
    arrays: Mapping[str, Array],
    table: Table,
    options: PlanOptions,
    config: OptimizerConfig | None,
    anew: str | None,
    ignored: list[tuple[str, str]],
    notes: list[str],
) -> ConvertedOptimizer:
    states = {path: array for path, array in arrays.items() if path.startswith(OPTIMIZER)}
    reason = "--no-optimizer"
    if anew and states and options.optimizer != "none":
        reason = anew
        notes.append(f"the optimizer's state is left out: {reason}")
    if options.optimizer == "none" or anew:
        ignored += [(path, reason) for path in states]
        return ConvertedOptimizer()
    if options.optimizer == "raw":
        return raw_optimizer(states)
    betas = {}
    if config is not None:
        found = {"beta1": config.beta1, "beta2": config.beta2}
        betas = {name: value for name, value in found.items() if value is not None}
    found = convert_optimizer(states, table.apply_part, betas)
    if table.family == FORECASTER and (place := _averages(found)):
        notes.append(AVERAGES.format(place=place))
    return found


def _averages(found: ConvertedOptimizer) -> str | None:
    """The path below `state/` of moving averages of the weights; None if there are none."""
    for leaf in found.leaves:
        before, there, _ = leaf.target.removeprefix("state/").partition("/ema/ema/")
        if there:
            return f"{before}/ema/ema"
    return None


def _rest(arrays: Mapping[str, Array]) -> list[PlannedLeaf]:
    """Step, other collections and extra state; their names are kept."""
    places = (
        ("step", "state/step"),
        (EXTRA, "state/extra_state/"),
        ("mdl_vars/", "state/collections/"),
    )
    leaves: list[PlannedLeaf] = []
    for path, array in arrays.items():
        if path.startswith((PARAMS, OPTIMIZER)):
            continue
        place = next((p for p in places if path == p[0] or path.startswith(p[0])), None)
        target = f"state/other/{path}" if place is None else place[1] + path.removeprefix(place[0])
        leaves.append(PlannedLeaf(target, array, "rename"))
    return leaves


def _spec_of(array: Array) -> LeafSpec:
    """The description of the array's first source, with the array's own shape and dtype."""
    return replace(array.leaves()[0].spec, shape=array.shape, dtype=array.dtype)
