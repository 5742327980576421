"""Reads what a PAXml folder's manifest says about the model, as settings of our configuration.

The manifest's `config` is the task's configuration as nested objects with `__class__`; `experiment`
(or `config`) holds the class variables of the experiment. Both say the same as the job's text
dumps, and are read with the converter's rules for these.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from converters.errors import ConversionError
from converters.paxml.infer import EXPERIMENT as MODEL_VARS
from converters.paxml.infer import (
    EXPERIMENT_HEAD,
    EXPERIMENT_ITEMS,
    Dump,
    Symbol,
    infer_optimizer,
    open_dump,
    read_backbone,
    read_experiment,
    read_items,
)
from converters.paxml.infer.hparams import EXPERIMENT
from efficientids_flax.tree import flatten

_CLASS = re.compile(r"<class '([\w.]+)\.(\w+)'>")


def settings_of(manifest: Mapping[str, Any], *, recommender: bool) -> dict[str, Any]:
    """Dotted key of our configuration -> value, for settings that are given; also `optimizer.*`."""
    values = dict(_dump(manifest))
    prefix = "backbone." if recommender else ""
    decoder = open_dump(values)
    read_backbone(decoder, head=not recommender)
    read_experiment(decoder, MODEL_VARS + (() if recommender else EXPERIMENT_HEAD))
    _activation(decoder)
    found = {prefix + key: value for key, value in _sure(decoder).items()}
    if recommender:
        items = open_dump(values)
        read_items(items)
        read_experiment(items, EXPERIMENT_ITEMS)
        found |= _sure(items)
    try:
        optimizer, where = infer_optimizer(values)
    except ConversionError:
        return found
    said = flatten(optimizer.to_dict(), separator=".", keep_empty=True) if optimizer else {}
    return found | {
        f"optimizer.{key}": value for key, value in said.items() if where[key]["from"] == "dump"
    }


def _sure(dump: Dump) -> dict[str, Any]:
    return {key: fact.value for key, fact in dump.facts.known.items() if fact.sure}


def _activation(dump: Dump) -> None:
    """Add the activation from the experiment's class variable, if nothing else gives it."""
    said = dump.values.get(f"{EXPERIMENT}ACTIVATION_CLS")
    if isinstance(said, Symbol) and not any(path.startswith("model.") for path in dump.values):
        kinds = {"GELU": "gelu_tanh", "SiLU": "silu", "ReLU": "relu"}
        if said.name in kinds:
            dump.add("activation", f"{EXPERIMENT}ACTIVATION_CLS", kinds[said.name])


def _dump(manifest: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Paths and values in the form that `converters.paxml.infer.hparams` reads from text dumps."""
    config, experiment = manifest.get("config"), manifest.get("experiment")
    if isinstance(config, Mapping) and "__class__" in config:
        yield from _walk(config, "")
    elif isinstance(config, Mapping):
        experiment = config
    if isinstance(experiment, Mapping):
        for name, value in experiment.items():
            yield f"{EXPERIMENT}{name}", _value(value)


def _walk(node: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if key == "__class__":
            module, _, name = str(value).rpartition(".")
            yield f"{path}cls", Symbol(module, name)
        elif isinstance(value, Mapping):
            yield from _walk(value, f"{path}{key}.")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            for place, item in enumerate(value):
                yield from _walk(item, f"{path}{key}[{place}].")
        else:
            yield f"{path}{key}", _value(value)


def _value(value: Any) -> Any:
    if isinstance(value, str) and (match := _CLASS.fullmatch(value)):
        return Symbol(match[1], match[2])
    return value
