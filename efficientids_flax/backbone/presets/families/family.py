"""The table of one `model_type`: its keys, their meaning, and what all its models share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from efficientids_flax.config import BackboneConfig
from efficientids_flax.config.parts import KernelAxes

Values = Mapping[str, Any]
LayerTypes = (
    list[str] | None
)  # 'full_attention' or 'sliding_attention', one per layer; None: no windows


@dataclass(frozen=True)
class Family:
    """The models of one `model_type`.

    A key is in one of four places. `defaults`: it is read. `only`: it changes the result, and some
    of its values are not supported; those are refused by name. `ignored`: the class has it, but it
    changes neither hidden states nor logits. Nowhere: the class does not have it; it is ignored
    with a note, as in transformers. `values.IRRELEVANT` and `values.REFUSED` hold for all families.
    A test compares the tables with the classes of the installed transformers, key by key.

    Attributes:
        defaults: key -> value if it is missing, for all keys that are read.
        fields: field of `BackboneConfig` -> key that holds it.
        fixed: field of `BackboneConfig` -> its value in all models of the family.
        only: key -> supported values; a missing key is supported too.
        ignored: keys of the class that affect neither hidden states nor logits.
        extra: keys among `defaults` and `only` that are not fields of the class, but that it reads
            nevertheless (from the remaining keys of the file).
        generic: other name of a key -> the key (`attribute_map` of the class).
        derive: computes fields of `BackboneConfig` that depend on several keys, from all values; it
            adds unsupported values to the problems, by name.
        express: inverse of `derive`: keys that depend on several fields of a configuration.
        layer_types: function that returns the layers with a sliding window.
        rotary: where the rotary settings are: 'flat', 'by_layer_type' (Gemma3) or 'none'.
        rotary_default: rotary settings if a file has none.
        position_scaling_key: the rotary setting that makes queries grow with their position.
        theta, local_theta: default base of the rotary positions, and that of sliding layers.
        local_theta_key: top-level key of the latter; None: there is none.
        fraction_key: older, top-level key of the rotated share of the head width, which is now
            among the rotary settings; None: the family has none.
        fraction: default of that share.
        rotary_kinds: scaling methods that the class accepts; empty: all.
        rotary_aliases: other name of a method -> the method.
        pairing: which numbers of a head form a rotated pair (`RotaryConfig.pairing`).
        pairing_key: key that tells whether pairs are interleaved; None: `pairing` does.
        in_float32: cos and sin stay float32 (`RotaryConfig.in_float32`).
        quantized: methods of `quantization_config` (`quant_method`) whose weights can be decoded.
        kernel_axes: axis order of kernels in the files, which are loaded without transposing.
    """

    defaults: Values
    fields: Mapping[str, str]
    fixed: Values = field(default_factory=dict)
    only: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    generic: Mapping[str, str] = field(default_factory=dict)
    derive: Callable[[Values, list[str]], Values] | None = None
    express: Callable[[BackboneConfig], Values] | None = None
    layer_types: Callable[[Values], LayerTypes] = lambda _: None
    rotary: Literal["flat", "by_layer_type", "none"] = "flat"
    rotary_default: Values = field(default_factory=dict)
    position_scaling_key: str | None = None
    theta: float = 10_000.0
    local_theta: float = 10_000.0
    local_theta_key: str | None = None
    fraction_key: str | None = None
    fraction: float = 1.0
    rotary_kinds: tuple[str, ...] = ()
    rotary_aliases: Mapping[str, str] = field(default_factory=dict)
    pairing: Literal["interleaved", "half_split"] = "half_split"
    pairing_key: str | None = None
    in_float32: bool = False
    quantized: tuple[str, ...] = ("fp8",)
    kernel_axes: KernelAxes = "out_in"

    @property
    def read(self) -> frozenset[str]:
        """Keys that are used: read, or checked for unsupported values."""
        return frozenset({*self.defaults, *self.only, *self.generic})
