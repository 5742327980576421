# ruff: noqa: E501
"""What a table says of the tensors of one family, and what holds for all."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from converters.rules import Ignore, Rule
from efficientids_flax.config import BackboneConfig

TO_IN_OUT = "transpose 1 0"


@dataclass(frozen=True)
class Cut:
    """A tensor that is several in one.

    Attributes:
        parts: (name in a layer, rows) of each, one after another.
        blocks: how many blocks the rows lie in, each with its share of every part: 'J' where a head of keys lies
            between its queries and its values.
    """

    parts: tuple[tuple[str, str], ...]
    blocks: str = "1"


@dataclass(frozen=True)
class Fused:
    """A tensor of a layer that holds several parameters of all its experts.

    Attributes:
        parts: names in the layer of what it holds.
        op: operations that make [parts, experts, ...] of it, or [experts, ...] of a single part.
        written: whether files of the family have it so; otherwise they are read only, and a tensor an expert written.
    """

    parts: tuple[str, ...]
    op: str = ""
    written: bool = False


@dataclass(frozen=True)
class TensorTable:
    """The tensors of one family.

    Attributes:
        embedding: name of the word embeddings [V, D]; what stands before it is the prefix of all names.
        top: rules for names after that prefix.
        layer: rules for names after `layers`.
        layers: what a layer's names begin with.
        cuts: name in a layer of tensors that are several in one -> their parts.
        stacks: name in a layer -> the tensors, numbered {j}, that are put on each other for it.
        layer_of: rules in addition to `layer`, by the configuration.
        fused: name in a layer of tensors that hold several parameters of all experts -> what they are.
        ignores: names after the prefix, and why they are left out.
        architecture: class of `transformers`, which `config.json` names.
        prefix: what stands before the names where a model is written.
        head: name of the head there.
    """

    embedding: str
    top: tuple[Rule, ...]
    layer: tuple[Rule, ...]
    architecture: str
    prefix: str = "model."
    head: str = "lm_head.weight"
    layers: str = "layers.{i}."
    cuts: Mapping[str, Cut] = field(default_factory=dict)
    stacks: Mapping[str, str] = field(default_factory=dict)
    layer_of: Callable[[BackboneConfig], tuple[Rule, ...]] = lambda _: ()
    ignores: tuple[Ignore, ...] = ()
    fused: Mapping[str, Fused] = field(default_factory=dict)


RECOMPUTED = "frequencies that the configuration gives"
CAUSAL = "a constant mask"
IMAGES = "for images; the language model is loaded"
# Tensors outside of the language model, by full name.
_PARTS = ("vision_tower", "vision_model", "visual", "multi_modal_projector", "connector")
OUTSIDE = tuple(
    Ignore(f"{place}{part}", IMAGES)
    for place in ("", "model.")
    for part in (*(f"{name}.{{rest*}}" for name in _PARTS), "image_newline")
)
HEAD_BIASES = ("lm_head.bias",)
HEADS = ("lm_head.weight", "embed_out.weight")  # the latter is GPT-NeoX's, up to transformers 4
