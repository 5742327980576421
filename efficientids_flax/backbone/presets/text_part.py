"""The language model of a `config.json`: all of it, or the text part of a multimodal model's."""

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
    """A `config.json` of a family or with a setting that the decoder does not compute."""


def text_part(values: Mapping[str, Any]) -> tuple[str, Family, dict[str, Any]]:
    """The language model's own values.

    Args:
        values: content of a `config.json`.

    Returns:
        The family whose tensors it has, a key of `FAMILIES`; how its keys are read; and its values,
        whose `tie_word_embeddings` is what the whole model says.

    Raises:
        UnsupportedConfigError: a model type that is not known, or no text part where one belongs.
    """
    given = values.get("model_type")
    if given == "mistral" and "layer_types" in values:  # which `AutoConfig` opens as the other
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
    """Of values that lie side by side, those of the text part's class."""
    _, family = _family(wrapper.text)
    own = {*family.defaults, *family.only, *family.ignored, *_FLAT} - {*family.extra}
    return {key: value for key, value in values.items() if key in own}


def _tied(
    outer: Mapping[str, Any], inner: Mapping[str, Any], wrapper: Wrapper, family: Family
) -> Any:
    """Whether the head is tied: the wrapper says it, in some classes the text part as well."""
    tied = outer.get(TIED, wrapper.tied)
    if not tied and wrapper.either:
        return inner.get(TIED, family.defaults[TIED])
    return tied


def says_no_head(config: Mapping[str, Any]) -> bool:
    """Whether the `architectures` of a `config.json` are bodies, classifiers and the like."""
    classes = config.get("architectures")
    if not isinstance(classes, list) or not classes:
        return False
    headed = re.compile(r"(ForCausalLM|LMHeadModel|DoubleHeadsModel|ForConditionalGeneration)")
    return not any(headed.search(str(name)) for name in classes)
