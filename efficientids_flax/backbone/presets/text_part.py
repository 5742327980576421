"""The language model in a `config.json`: the whole file, or a multimodal model's text part."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from efficientids_flax.backbone.presets.families import (
    CAUSAL,
    FAMILIES,
    TEXTS,
    WRAPPERS,
    Family,
)
from efficientids_flax.backbone.presets.families.multimodal import Wrapper

TIED = "tie_word_embeddings"
DTYPES = ("dtype", "torch_dtype")
_FLAT = ("rope_parameters", "rope_scaling", "rope_theta")  # besides the fields of the class


class UnsupportedConfigError(ValueError):
    """A `config.json` has a family or a setting that the decoder does not support."""


def text_part(values: Mapping[str, Any]) -> tuple[str, Family, dict[str, Any]]:
    """The language model's part of a configuration.

    Args:
        values: content of a `config.json`.

    Returns:
        The name of the family by the tensors it has, a key of `FAMILIES`; the table for reading its
        keys; and its values, with `tie_word_embeddings` as the whole model sets it.

    Raises:
        UnsupportedConfigError: the model type is not known, or the text part is missing.
    """
    given = values.get("model_type")
    if given == "mistral" and "layer_types" in values:  # `AutoConfig` opens it as Ministral
        given, values = "ministral", {**values, "model_type": "ministral"}
    wrapper = WRAPPERS.get(given) if isinstance(given, str) else None
    if wrapper is None:
        return (*_family(given), dict(values))
    inner = values.get("text_config")
    if inner is None and wrapper.always:
        inner = _flat(values, wrapper) if wrapper.flat else {}
    if not isinstance(inner, Mapping):
        raise UnsupportedConfigError(f"text_config: expected a mapping, found {inner!r:.60}")
    kind = wrapper.text if wrapper.always else inner.get("model_type", wrapper.text)
    name, family = _family(kind, f"text_config of {given}: ")
    text = {**inner, "model_type": kind, TIED: _tied(values, inner, wrapper, family)}
    if wrapper.causal and values.get(CAUSAL) is not None:
        text[CAUSAL] = values[CAUSAL]
    if not any(text.get(key) for key in DTYPES):
        text |= {key: values[key] for key in DTYPES if values.get(key)}
    if wrapper.only:
        family = replace(family, only={**family.only, **wrapper.only})
    return name, family, text


def _family(kind: Any, where: str = "") -> tuple[str, Family]:
    if isinstance(kind, str) and kind in TEXTS:
        return TEXTS[kind]
    if isinstance(kind, str) and kind in FAMILIES:
        return kind, FAMILIES[kind]
    known = ", ".join([*FAMILIES, *WRAPPERS])
    raise UnsupportedConfigError(f"{where}model_type: {kind!r} is not supported; known are {known}")


def _flat(values: Mapping[str, Any], wrapper: Wrapper) -> dict[str, Any]:
    """The text part's values, from an older file that has the values of all parts side by side."""
    _, family = _family(wrapper.text)
    own = {*family.defaults, *family.only, *family.ignored, *_FLAT} - {*family.extra}
    return {key: value for key, value in values.items() if key in own}


def _tied(
    outer: Mapping[str, Any], inner: Mapping[str, Any], wrapper: Wrapper, family: Family
) -> Any:
    """Whether the head is tied: by the wrapper's key, in some classes also by the text part's."""
    tied = outer.get(TIED, wrapper.tied)
    if not tied and wrapper.either:
        return inner.get(TIED, family.defaults[TIED])
    return tied


def says_no_head(config: Mapping[str, Any]) -> bool:
    """Whether the `architectures` of a `config.json` have no head: bare models, classifiers."""
    classes = config.get("architectures")
    if not isinstance(classes, list) or not classes:
        return False
    headed = re.compile(r"(ForCausalLM|LMHeadModel|DoubleHeadsModel|ForConditionalGeneration)")
    return not any(headed.search(str(name)) for name in classes)
