"""Combines what tree and dump say about norms; Praxis has a template for the norm of each place.

The norm before attention sets `norm` and `norm_*`. The other norms set keys below `norms`, of which
only those remain in the end that differ from the norm before attention.
"""

from collections.abc import Mapping
from typing import Any

from converters.paxml.infer.dump import Dump
from converters.paxml.infer.facts import Facts, Leaves
from efficientids_flax.config import NormPlace
from efficientids_flax.config.parts import NORM_FIELDS, NORM_PLACES
from efficientids_flax.settings import ASSUMED, GIVEN

KINDS = {"LayerNorm": ("layer_norm", False), "RmsNorm": ("rms_norm", True)}  # default direct_scale
TEMPLATES: Mapping[NormPlace, str] = {
    "attention": "{layer}.ln_tpl",
    "mlp": "{ff}.ln_tpl",
    "moe": "{moe}.ln_tpl",
    "final": "{lm}.final_ln_tpl",
    "query_key": "{atten}.ln_tpl",
}

FAKE_NORM = "FakeLayerNorm"  # saxml: returns its input

Chosen = dict[str, tuple[Any, str]]  # key -> (value, origin)


def norm_facts(facts: Facts, leaves: Leaves, norm: str, place: NormPlace) -> None:
    """Facts from the tree: a norm with a bias is a LayerNorm, one without is usually an RmsNorm."""
    biased, where = f"{norm}/bias" in leaves, f"{leaves.root}{norm}/bias"
    facts.add(_key(place, "bias"), biased, where)
    kind = "layer_norm" if biased else "rms_norm"
    facts.add(_key(place, "kind"), kind, where, sure=biased)


def read_norms(dump: Dump) -> None:
    """Facts from the dump: kind, epsilon, scale and bias of each norm."""
    for place, template in TEMPLATES.items():
        if _absent(dump, place, template):
            continue
        none = dump.class_of(template, "LayerNorm") == FAKE_NORM
        path = TEMPLATES["attention"] if none else template  # the layer's second or only norm
        name = dump.class_of(path, "LayerNorm")
        if name not in KINDS or dump.get(f"{path}.use_scale", True) is False:
            dump.refuse(f"{path}.cls", f"{name} without scale" if name in KINDS else name)
            continue
        kind, direct = KINDS[name]
        dump.add(_key(place, "kind"), f"{path}.cls", kind)
        dump.add(_key(place, "epsilon"), f"{path}.epsilon", dump.get(f"{path}.epsilon", 1e-6))
        direct = dump.get(f"{path}.direct_scale", direct)
        dump.add(_key(place, "scale_plus_one"), f"{path}.direct_scale", not direct)
        biased = kind == "layer_norm" and dump.get(f"{path}.use_bias", True)
        dump.add(_key(place, "bias"), f"{path}.use_bias", biased)


def settle_norms(chosen: Chosen, prefix: str) -> None:
    """Keep for each place only the settings that differ from the norm before attention.

    A flag for all norms applies to each of them. If a place has another kind of norm and no source
    gives its scale, the scale is the default of its class in Praxis.

    Args:
        chosen: the settings; those below `norms` are changed.
        prefix: prefix of the decoder's keys.
    """
    for place in NORM_PLACES[1:]:
        own = {
            name: found
            for name in NORM_FIELDS
            if (found := chosen.pop(f"{prefix}norms.{place}.{name}", None)) is not None
        }
        biased = "bias" in own and own["bias"][0]
        for name, (value, source) in own.items():
            common = chosen.get(prefix + NORM_FIELDS[name])
            shown = biased and name in ("kind", "bias")  # the tree proves it
            if common and common[1] == GIVEN and source != GIVEN and not shown:
                continue
            if common is None or common[0] != value:
                chosen[f"{prefix}norms.{place}.{name}"] = (value, source)
        other = chosen.get(f"{prefix}norms.{place}.kind")
        plus_one = chosen.get(f"{prefix}norm_scale_plus_one", (False, ""))[0]
        if other and "scale_plus_one" not in own and plus_one != (other[0] == "layer_norm"):
            chosen[f"{prefix}norms.{place}.scale_plus_one"] = (not plus_one, ASSUMED)


def _key(place: NormPlace, name: str) -> str:
    return NORM_FIELDS[name] if place == "attention" else f"norms.{place}.{name}"


def _absent(dump: Dump, place: NormPlace, path: str) -> bool:
    """Whether the model has no norm at a place."""
    if place == "moe":
        return not dump.values.get(dump.path("{stack}.moe_layers"))
    if place == "query_key":
        return not dump.class_of(path, "")
    return place == "final" and dump.class_of(path, "LayerNorm") is None
