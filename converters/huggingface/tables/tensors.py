"""What the table of a family contains, and names that are the same for all families."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from converters.rules import Ignore, Rule
from efficientids_flax.config import BackboneConfig

TO_IN_OUT = "transpose 1 0"


@dataclass(frozen=True)
class Cut:
    """A tensor that holds several parameters.

    Attributes:
        parts: (name in a layer, rows) of each part, in order.
        blocks: number of blocks of rows, each of which has a share of every part; 'J' if the rows
            of each key head follow those of its queries.
    """

    parts: tuple[tuple[str, str], ...]
    blocks: str = "1"


@dataclass(frozen=True)
class Fused:
    """A tensor of a layer that holds several parameters of all its experts.

    Attributes:
        parts: names in the layer of the parameters.
        op: operations that turn it into [parts, experts, ...], or into [experts, ...] for a single
            part.
        written: whether files of the family have this tensor; if not, it is read, but one tensor
            per expert is written.
    """

    parts: tuple[str, ...]
    op: str = ""
    written: bool = False


@dataclass(frozen=True)
class TensorTable:
    """The tensors of one family.

    Attributes:
        embedding: name of the word embeddings [V, D]; the text before it is the prefix of all
            names.
        top: rules for names after that prefix.
        layer: rules for names after `layers`.
        layers: prefix of a layer's names.
        cuts: name in a layer of a tensor that holds several parameters -> its parts.
        stacks: name in a layer -> name of the tensors, numbered {j}, that are stacked to make it.
        layer_of: rules in addition to `layer`, which depend on the configuration.
        fused: name in a layer of a tensor with several parameters of all experts -> its parts.
        ignores: names after the prefix that are left out, and why.
        architecture: class of `transformers` that `config.json` names.
        prefix: prefix of the names when a model is written.
        head: name of the head when a model is written.
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
# Tensors that are not part of the language model, by full name.
_PARTS = ("vision_tower", "vision_model", "visual", "multi_modal_projector", "connector")
OUTSIDE = tuple(
    Ignore(f"{place}{part}", IMAGES)
    for place in ("", "model.")
    for part in (*(f"{name}.{{rest*}}" for name in _PARTS), "image_newline")
)
HEAD_BIASES = ("lm_head.bias",)
HEADS = ("lm_head.weight", "embed_out.weight")  # the latter is GPT-NeoX's, up to transformers 4
