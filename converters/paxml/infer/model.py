"""Infers the model's configuration from tree, dump and flags, and the origin of each value.

The sources, from the weakest to the strongest: the family's default, Praxis' default (if there is a
dump), the usual case for such a tree, a published experiment, the dump, a flag, the tree's shapes.
Shapes cannot be overruled: a dump or a flag that contradicts them is an error.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from converters.arrays import LeafSpec
from converters.errors import MappingError, UnclearModelError, UnsupportedModelError
from converters.paxml.infer.backbone import read_backbone
from converters.paxml.infer.dump import open_dump, read_experiment
from converters.paxml.infer.facts import Fact, Facts, Published
from converters.paxml.infer.flags import read_flags
from converters.paxml.infer.hparams import is_described
from converters.paxml.infer.items import read_items, recommender_facts
from converters.paxml.infer.norms import settle_norms
from converters.paxml.infer.tree import backbone_facts
from efficientids_flax.config import BackboneConfig, EfficientIDSConfig
from efficientids_flax.config.layers import layer_settings
from efficientids_flax.config.record import Record
from efficientids_flax.settings import ASSUMED, DUMP, GIVEN, HEAD, OPEN, TREE, origins_of_leaves
from efficientids_flax.tree import flatten, unflatten

Model = BackboneConfig | EfficientIDSConfig
OPEN_KEYS = {row.key for row in OPEN}
SHOWN = 20  # problems that one error lists in full

# Defaults without a dump, by family and kind of norm. (Praxis' RmsNorm casts before it scales, but
# XLA fuses both in float32; recordings of its results show this.)
GPT = {"activation": "relu", "norm_scale_plus_one": True, "position_embedding": "sinusoidal"}
LLAMA = {"activation": "silu", "norm_scale_plus_one": False, "norm_scale_in_float32": True}
DEFAULTS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    # paxml.tasks.lm.model_params.TransformerLmSpmdAdafactor, and LLaMA in Praxis' words
    "transformer_lm": {
        "layer_norm": {**GPT, "attention_logit_cap": 50.0, "final_logit_cap": 30.0},
        "rms_norm": {**LLAMA, "rotary.pairing": "half_split"},
    },
    # the published EfficientIDs experiments (C4 models; LLaMA from `saxml_layers`)
    "efficientids": {
        "layer_norm": {**GPT, "attention_logit_cap": 50.0},
        "rms_norm": {**LLAMA, "norm_epsilon": 1e-5, "rotary.pairing": "interleaved"},
    },
}

EXPERIMENT = (
    # key                     class variable
    ("attention_logit_cap", "ATTEN_LOGIT_CAP"),
    ("norm_policy", "NORM_POLICY"),
)
EXPERIMENT_HEAD = (("final_logit_cap", "SOFTMAX_CAP_LOGITS"),)
EXPERIMENT_ITEMS = (
    ("placeholder_item_id", "PLH_ID"),
    ("soft_cap_logits", "SOFT_CAP_LOGITS"),
    ("use_correction", "CORRECTION"),
    ("full_softmax", "FULL_SOFTMAX"),
    ("label_smoothing", "LABEL_SMOOTHING"),
    ("second_label_smoothing", "SECOND_LABEL_SMOOTHING"),
    ("label_smoothing_in_eval", "SMOOTH_EVAL"),
    ("z_loss_weight", "Z_LOSS"),
    ("num_clusters", "NUM_ITEM_CLUSTERS"),
)


@dataclass(frozen=True)
class Inferred:
    """The result of inferring a model's configuration.

    Attributes:
        config: `BackboneConfig` (transformer_lm) or `EfficientIDSConfig` (efficientids).
        provenance: dotted key -> {"value", "from"}; "from" is an origin of
            `efficientids_flax.settings`.
        notes: sentences on settings of the dump that the configuration does not contain.
    """

    config: Model
    provenance: dict[str, dict[str, Any]]
    notes: tuple[str, ...] = ()


def infer_model(
    specs: Mapping[str, LeafSpec],
    family: str,
    dump: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    published: Published | None = None,
) -> Inferred:
    """Infer the configuration of the model that the parameters belong to.

    Args:
        specs: canonical leaf path -> description; only leaves below `mdl_vars/params/` are used.
        family: 'transformer_lm' or 'efficientids'.
        dump: result of `read_hparams`; None without a dump.
        overrides: dotted key of the configuration -> value, or its JSON text. Keys that begin with
            `optimizer.` are left to `infer_optimizer`.
        published: settings of published experiments; weaker than the dump.

    Raises:
        MappingError: lists every unknown flag and every flag that contradicts the tree.
        UnclearModelError: lists all missing or contradictory leaves and settings, and invalid
            values.
        UnsupportedModelError: the only obstacle is that Praxis has settings that the decoder does
            not compute.
    """
    config: type[Model]
    if family == "transformer_lm":
        config, prefix = BackboneConfig, ""
        tree = backbone_facts(specs)
    elif family == "efficientids":
        config, prefix = EfficientIDSConfig, "backbone."
        tree = recommender_facts(specs)
    else:
        raise MappingError(f"family {family!r} has no configuration; known: {', '.join(DEFAULTS)}")
    said = _dump_facts(dump or {}, prefix)
    wrong: list[str] = []
    flags = read_flags(config, overrides or {}, wrong)
    defaults = _family_defaults(family, prefix, tree.of_model(), said.of_model())
    given = {key: Fact(value, f"--set {key}") for key, value in flags.items()}
    problems = [*tree.problems]
    places = sorted({*said.layers, *tree.layers})
    for shapes, claims in [(tree, said), *((tree.of_layer(n), said.of_layer(n)) for n in places)]:
        wrong += _contradictions(shapes, "a flag", given)
        sure = {key: fact for key, fact in claims.known.items() if fact.sure}
        problems += _contradictions(shapes, "the dump", sure)
    wrong, problems = list(dict.fromkeys(wrong)), list(dict.fromkeys(problems))
    unsupported = [*said.problems]
    unsupported += [
        f"{key}: {sentence}; give it with --set {key}=…"
        for key, sentence in said.unread.items()
        if key not in flags and not (key in tree.known and tree.known[key].sure)
    ]
    if wrong:
        raise MappingError(_listed("the configuration cannot be inferred", [*wrong, *problems]))
    if problems:
        every = [*problems, *unsupported]
        raise UnclearModelError(_listed("the configuration cannot be inferred", every))
    if unsupported:
        raise UnsupportedModelError(_listed("the model is not one of ours", unsupported))

    # A job's dump is a complete description: a path that it lacks has Praxis' default.
    unsaid = DUMP if is_described(dump) else ASSUMED

    def choose(said: Facts, tree: Facts) -> dict[str, tuple[Any, str]]:
        chosen: dict[str, tuple[Any, str]] = {}
        _apply(chosen, defaults, unsaid)
        _apply(chosen, {k: f.value for k, f in said.known.items() if not f.sure}, DUMP)
        for key, fact in tree.known.items():
            if not fact.sure:
                _apply(chosen, {key: fact.value}, _origin_of_usual(key, prefix, fact, said))
        if published is not None and unsaid == ASSUMED:
            own = {k: v for k, v in published.model.items() if not prefix or k not in HEAD}
            _apply(chosen, {prefix + key: value for key, value in own.items()}, published.origin)
        _apply(chosen, {k: f.value for k, f in said.known.items() if f.sure}, DUMP)
        _apply(chosen, flags, GIVEN)
        _apply(chosen, {k: f.value for k, f in tree.known.items() if f.sure}, TREE)
        settle_norms(chosen, prefix)
        return chosen

    chosen = choose(said.of_model(), tree.of_model())
    layers = [choose(said.of_layer(place), tree.of_layer(place)) for place in places]
    try:
        made = _made(config, chosen)
        if layers and f"{prefix}layer_settings" not in flags:
            own = [_decoder(_made(config, values)) for values in layers]
            settings = layer_settings(_decoder(made), dict(zip(places, own, strict=True)))
            source = DUMP if said.layers else TREE
            chosen[f"{prefix}layer_settings"] = ([each.to_dict() for each in settings], source)
            made = _made(config, chosen)
    except ValueError as error:
        kind = MappingError if flags else UnclearModelError
        raise kind(f"the inferred configuration is not valid: {error}") from error
    origins = {key: origin for key, (_, origin) in chosen.items()}
    return Inferred(made, provenance(made, origins, unsaid), tuple(said.notes))


def _made(config: type[Model], chosen: Mapping[str, tuple[Any, str]]) -> Model:
    values = {key: value for key, (value, _) in chosen.items()}
    return config.from_dict(unflatten(values, separator="."))


def _decoder(config: Model) -> BackboneConfig:
    return config if isinstance(config, BackboneConfig) else config.backbone


def provenance(
    made: Record, origins: Mapping[str, str], unsaid: str = ASSUMED
) -> dict[str, dict[str, Any]]:
    """Dotted key -> value and origin of every leaf; the origin is `unsaid` if not in `origins`."""
    values = made.to_dict()
    leaves = flatten(values, separator=".", keep_empty=True)
    found = origins_of_leaves(values, origins, unsaid=unsaid)
    return {key: {"value": value, "from": found[key]} for key, value in leaves.items()}


def _dump_facts(dump: Mapping[str, Any], prefix: str) -> Facts:
    """Facts from the dump, with the keys of the family's configuration."""
    facts = Facts()
    backbone = open_dump(dump)
    read_backbone(backbone, head=not prefix)
    read_experiment(backbone, EXPERIMENT + (() if prefix else EXPERIMENT_HEAD))
    facts.put(prefix, backbone.facts)
    if prefix:
        items = open_dump(dump)
        read_items(items)
        read_experiment(items, EXPERIMENT_ITEMS)
        facts.put("", items.facts)
    return facts


def _origin_of_usual(key: str, prefix: str, fact: Fact, said: Facts) -> str:
    """Origin of a tree's usual value: assumed if the tree fits other values of this key as well."""
    told = said.known.get(key)
    if told is not None and _same(told.value, fact.value):
        return DUMP
    return ASSUMED if key.removeprefix(prefix) in OPEN_KEYS else TREE


def _family_defaults(family: str, prefix: str, tree: Facts, said: Facts) -> dict[str, Any]:
    """Defaults for what no source gives; the tree's norm shows which kind of model it is."""
    norm = said.known.get(f"{prefix}norm") or tree.known.get(f"{prefix}norm")
    kind = norm.value if norm else "layer_norm"
    found = dict(DEFAULTS[family][kind])
    tied = tree.known.get(f"{prefix}tied_embeddings")
    llama = kind == "rms_norm" and tied is not None and not tied.value
    found["embedding_scale"] = "none" if llama else "sqrt_dim"
    words = tree.known.get("vocab_size")
    if kind == "rms_norm" and tied is not None and tied.value and words is not None:
        # PAXml's language models that share the table inherit their cap of 30 (SOFTMAX_CAP_LOGITS
        # of TransformerLmSpmdAdafactor). saxml's Gemma has another head class, and no cap.
        found["final_logit_cap"] = 30.0 if "logits_ffn" in words.where else None
    if f"{prefix}position_embedding" in tree.known:  # learned positions, so no rotary ones
        found.pop("rotary.pairing", None)
    return {prefix + key: value for key, value in found.items()}


def _contradictions(tree: Facts, origin: str, claims: Mapping[str, Fact]) -> list[str]:
    """Claims of another source that contradict what the shapes prove."""
    found = []
    for key, claim in claims.items():
        fact, never = _known(tree, key, claim), tree.excluded.get(key)
        if fact and fact.sure and not _same(fact.value, claim.value):
            found.append(
                f"{key}: the tree has {fact.value!r} ({fact.where}),"
                f" {origin} says {claim.value!r} ({claim.where})"
            )
        elif never and _same(never.value, claim.value):
            found.append(
                f"{key}: {origin} says {claim.value!r} ({claim.where}),"
                f" the tree has none ({never.where})"
            )
    return found


def _known(tree: Facts, key: str, claim: Fact) -> Fact | None:
    """What the tree says about a key, about its record (if that is None), or about a part of it."""
    outer = tree.known.get(key.rpartition(".")[0])
    if outer is not None and outer.value is None:
        return outer
    if claim.value is None:
        inner = (fact for place, fact in tree.known.items() if place.startswith(f"{key}."))
        return tree.known.get(key) or next(inner, None)
    return tree.known.get(key)


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return list(first) == list(second)
    return first == second and isinstance(first, bool) == isinstance(second, bool)


def _apply(chosen: dict[str, tuple[Any, str]], values: Mapping[str, Any], source: str) -> None:
    """Replace weaker values; a whole record replaces its parts, and a part replaces the record."""
    for key, value in values.items():
        for other in [k for k in chosen if k.startswith(f"{key}.") or key.startswith(f"{k}.")]:
            del chosen[other]
        chosen[key] = (value, source)


def _listed(what: str, problems: Collection[str]) -> str:
    shown = list(problems)[:SHOWN]
    if len(problems) > SHOWN:
        shown.append(f"... and {len(problems) - SHOWN} more")
    return "\n  ".join([f"{what}, {len(problems)} problem(s):", *shown])
