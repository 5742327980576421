# ruff: noqa: E501
"""What a table says of the tensors of one family, and what holds for all."""

from collections.abc import Mapping
from dataclasses import dataclass

from converters.rules import Ignore, Rule

TO_IN_OUT = "transpose 1 0"


@dataclass(frozen=True)
class TensorTable:
    """The tensors of one family.

    Attributes:
        embedding: name of the word embeddings [V, D]; what stands before it is the prefix of all names.
        top: rules for names after that prefix.
        layer: rules for names after `layers`.
        layers: what a layer's names begin with.
        cuts: name in a layer of tensors that are several in one -> (name, rows) of each part.
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
    cuts: Mapping[str, tuple[tuple[str, str], ...]] | None = None
    ignores: tuple[Ignore, ...] = ()


RECOMPUTED = "frequencies that the configuration gives"
CAUSAL = "a constant mask"
IMAGES = "for images; the language model is loaded"
# Tensors outside of the language model, by full name.
OUTSIDE = (
    Ignore("vision_tower.{rest*}", IMAGES), Ignore("model.vision_tower.{rest*}", IMAGES),
    Ignore("multi_modal_projector.{rest*}", IMAGES), Ignore("model.multi_modal_projector.{rest*}", IMAGES),
)  # fmt: skip
HEADS = ("lm_head.weight", "embed_out.weight")  # the latter is GPT-NeoX's, up to transformers 4
