"""Finds the published experiment that a checkpoint comes from: named by the user or recognised."""

from collections.abc import Mapping
from typing import Any

from converters.arrays import LeafSpec
from converters.errors import MappingError
from converters.paxml import Checkpoint, is_float
from converters.paxml.experiments import Evidence, chosen, named, recognised
from converters.paxml.forecasters import forecaster_facts, published
from converters.paxml.infer import Published, backbone_facts, is_described

LANGUAGE_MODEL, FORECASTER = "transformer_lm", "timesfm"
PARAMS = "mdl_vars/params/"
SCALES = ("_quantized_scale", "_quantized_zp")  # float32 arrays beside quantized weights


def publication(
    name: str | None,
    family: str,
    specs: Mapping[str, LeafSpec],
    checkpoint: Checkpoint,
    optimizer: str | None,
    dump: Mapping[str, Any] | None,
    notes: list[str],
) -> Published | None:
    """Look up the settings that published experiments give for this checkpoint.

    Args:
        name: the experiment that the user named; None if none.
        family: family of the tree.
        specs: leaf path -> description of every parameter.
        checkpoint: the checkpoint that the parameters belong to.
        optimizer: name of the optimizer whose states it holds.
        dump: PAXml's own description of the job; with one, no experiment is needed.
        notes: receives what the user should know.

    Raises:
        MappingError: the experiment does not exist, or the parameters do not fit its model.
    """
    if family == FORECASTER:
        return published(name, forecaster_facts(specs), notes)
    if is_described(dump):
        if name is not None:
            named(name)
            notes.append(
                f"--experiment {name}: not used, the job's own dump says all that it would"
            )
        return None
    if family != LANGUAGE_MODEL:
        if name is not None:
            raise MappingError(
                f"--experiment {named(name).name}: is a language model, and this tree is of family"
                f" {family}; say its settings with --set"
            )
        return None
    tree = backbone_facts(specs)
    if name is not None:
        return chosen(named(name), tree, notes)
    return None if tree.problems else recognised(tree, _evidence(checkpoint, optimizer), notes)


def _evidence(checkpoint: Checkpoint, optimizer: str | None) -> Evidence:
    step = checkpoint.leaves.get("step")
    dtypes = {
        leaf.spec.dtype.name
        for path, leaf in checkpoint.leaves.items()
        if path.startswith(PARAMS) and is_float(leaf.spec.dtype) and not path.endswith(SCALES)
    }
    shape = None if step is None else step.spec.shape
    return Evidence(checkpoint.step, shape, frozenset(dtypes), optimizer)
