"""The tables against the installed transformers: each key that a family's classes have or read.

A failure here after an update says what changed there: give the new key its place in the table.
"""

import ast
import dataclasses
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from converters.huggingface.tables import TABLES
from efficientids_flax.backbone.layers import ACTIVATIONS as FUNCTIONS
from efficientids_flax.backbone.presets import ACTIVATIONS, FAMILIES, IRRELEVANT, REFUSED
from efficientids_flax.backbone.presets.families import TEXTS, WRAPPERS, Family
from efficientids_flax.backbone.presets.keys import OTHERS
from efficientids_flax.backbone.presets.rotary import ROTARY_KEYS

pytest.importorskip("transformers")

from transformers import CONFIG_MAPPING, PreTrainedConfig
from transformers.models.auto.configuration_auto import model_type_to_module_name

# Text parts of multimodal models have keys of their own, and no causal model.
READ = {**FAMILIES, **{kind: family for kind, (_, family) in TEXTS.items()}}
BASE = {field.name for field in dataclasses.fields(PreTrainedConfig)}
MASKS = {"create_causal_mask", "create_sliding_window_causal_mask", "create_masks_for_generate"}


def known(family: Family) -> set[str]:
    return {*family.read, *family.ignored, *IRRELEVANT, *REFUSED, *ROTARY_KEYS, *OTHERS}


@cache
def source(kind: str, part: str) -> ast.Module:
    """A file of transformers: 'configuration' or 'modeling' of a model type."""
    spec = importlib.util.find_spec("transformers")
    assert spec is not None and spec.submodule_search_locations
    name = model_type_to_module_name(kind)
    file = Path(spec.submodule_search_locations[0]) / "models" / name / f"{part}_{name}.py"
    return _without_initialization(ast.parse(file.read_text()))


def reached(kind: str) -> list[ast.AST]:
    """Classes and functions of the modeling file that the causal model is made of."""
    found = {
        node.name: node
        for node in source(kind, "modeling").body
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
    }
    made = CONFIG_MAPPING[kind].__name__.replace("Config", "Model")
    names, seen = [TABLES[kind].architecture if kind in TABLES else made], set()
    while names:
        name = names.pop()
        if name in found and name not in seen:
            seen.add(name)
            names += [node.id for node in ast.walk(found[name]) if isinstance(node, ast.Name)]
    return [found[name] for name in sorted(seen)]


def _without_initialization(module: ast.Module) -> ast.Module:
    """The file without what fills new models with random numbers, other models' parts among it."""
    for node in module.body:
        if isinstance(node, ast.ClassDef):
            node.body = [n for n in node.body if getattr(n, "name", "") != "_init_weights"]
    return module


def attributes(node: ast.AST) -> set[str]:
    """Names that code reads of a configuration: `config.x`, `getattr(self.config, 'x')`."""
    found = set()
    for part in ast.walk(node):
        if isinstance(part, ast.Attribute) and _is_config(part.value):
            found.add(part.attr)
        if isinstance(part, ast.Call) and getattr(part.func, "id", "") in ("getattr", "hasattr"):
            first, second, *_ = part.args
            if _is_config(first) and isinstance(second, ast.Constant):
                found.add(second.value)
    return found


def _is_config(node: ast.AST) -> bool:
    return getattr(node, "id", getattr(node, "attr", None)) == "config"


def leftovers(kind: str, name: str) -> set[str]:
    """Keys that a configuration class takes out of what is no field of it."""
    (made,) = (
        node
        for node in source(kind, "configuration").body
        if isinstance(node, ast.ClassDef) and node.name == name
    )
    return {
        part.args[0].value
        for part in ast.walk(made)
        if isinstance(part, ast.Call)
        and isinstance(part.func, ast.Attribute)
        and getattr(part.func.value, "id", "") == "kwargs"
        and part.func.attr in ("get", "pop")
        and isinstance(part.args[0], ast.Constant)
        and isinstance(part.args[0].value, str)
    }


@pytest.mark.parametrize("kind", READ)
def test_each_key_of_the_class_has_a_place(kind: str) -> None:
    family, made = READ[kind], CONFIG_MAPPING[kind]
    fields = {field.name for field in dataclasses.fields(made)} - BASE
    assert fields - known(family) == set(), "fields of the class"
    assert leftovers(kind, made.__name__) - known(family) == set(), "keys that are no fields"
    named = {*family.defaults, *family.only} - fields - {*ROTARY_KEYS}
    assert named == {*family.extra}, "keys that the class has no field for"
    seen = fields.union(*map(attributes, reached(kind)))
    assert {*family.ignored} <= seen, "ignored keys that transformers does not have"
    assert not family.read & {*family.ignored}
    assert dict(family.generic) == made.attribute_map


@pytest.mark.parametrize("kind", READ)
def test_a_missing_key_means_the_default_of_the_class(kind: str) -> None:
    family, made = READ[kind], CONFIG_MAPPING[kind]
    theirs: dict[str, Any] = {
        field.name: field.default for field in dataclasses.fields(made) if field.name not in BASE
    }
    assert {
        key: (value, theirs[key])
        for key, value in family.defaults.items()
        if key in theirs and theirs[key] != value
    } == {}
    for key, allowed in family.only.items():
        assert key not in theirs or theirs[key] in allowed, key
    if family.rotary == "by_layer_type":
        bases = {"global": family.theta, "local": family.local_theta}
        assert made.default_theta in (bases, *bases.values())
        assert isinstance(made.default_theta, dict) or family.theta == family.local_theta
    elif family.rotary == "flat":
        assert made.default_theta == family.theta


@pytest.mark.parametrize("kind", READ)
def test_each_key_that_the_model_reads_has_a_place(kind: str) -> None:
    nodes = reached(kind)
    assert len(nodes) > 3
    assert set().union(*map(attributes, nodes)) - known(READ[kind]) == set()


@pytest.mark.parametrize("kind", READ)
def test_masks_of_each_family_look_at_is_causal(kind: str) -> None:
    names = {
        node.id for part in reached(kind) for node in ast.walk(part) if isinstance(node, ast.Name)
    }
    assert names & MASKS


@pytest.mark.parametrize("kind", WRAPPERS)
def test_multimodal_models_hold_the_language_models_that_the_table_says(kind: str) -> None:
    wrapper = WRAPPERS[kind]
    made: Any = CONFIG_MAPPING[kind]
    spec = made.sub_configs_defaults["text_config"]
    assert wrapper.always == issubclass(spec.config_class, PreTrainedConfig)
    assert wrapper.text == (spec.model_type or spec.config_class.model_type)
    (tied,) = (f.default for f in dataclasses.fields(made) if f.name == "tie_word_embeddings")
    assert wrapper.tied == tied
    text = {"model_type": wrapper.text, "tie_word_embeddings": True}
    outer = made(text_config=text, tie_word_embeddings=False)
    assert wrapper.either == outer.tie_word_embeddings


def test_every_activation_without_parameters_is_that_of_transformers() -> None:
    torch = pytest.importorskip("torch")
    from transformers.activations import ACT2CLS, ACT2FN

    points = np.linspace(-12, 12, 97, dtype=np.float32)
    run = jax.jit(lambda x: {name: FUNCTIONS[ours](x) for name, ours in ACTIVATIONS.items()})
    found = run(points)
    assert {*ACT2CLS} == {*found, "prelu", "xielu"}  # which have some
    for name, values in found.items():
        wanted = ACT2FN[name](torch.tensor(points)).numpy()
        np.testing.assert_allclose(values, wanted, rtol=1e-5, atol=1e-5, err_msg=name)
