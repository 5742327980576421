"""What a table says of one `model_type`: its keys, what they mean, what all its models have."""

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

    A key is in one of four places: `defaults` (it is read), `only` (it changes the result, and some
    of its values are not computed: those are refused by name), `ignored` (the class has it, and it
    changes neither hidden states nor logits) and nowhere (the class does not have it: passed over,
    as transformers does, with a note). `values.IRRELEVANT` and `values.REFUSED` hold for all.
    A test compares this with the classes of the installed transformers, key by key.

    Attributes:
        defaults: key -> value where it is missing, of all keys that are read.
        fields: field of `BackboneConfig` -> key that holds it.
        fixed: field of `BackboneConfig` -> its value in all models of the family.
        only: key -> the values that this decoder computes; a missing key is one of them.
        ignored: keys of its class without a meaning for hidden states and logits.
        extra: keys among `defaults` and `only` that are no field of its class, which reads them all
            the same (from what is left over of the file).
        generic: other name of a key -> the key (`attribute_map` of its class).
        derive: fields of `BackboneConfig` that several keys give together, from all values; what it
            cannot compute it adds to the problems, by name.
        express: the way back: keys that the fields of a configuration give together.
        layer_types: which layers have a sliding window.
        rotary: where its settings lie: 'flat', 'by_layer_type' (Gemma3) or 'none'.
        rotary_default: rotary settings of a file that has none.
        position_scaling_key: the rotary setting that makes queries grow with their position.
        theta, local_theta: default base of the rotary positions, and that of sliding layers.
        local_theta_key: key of the latter; None where nothing else says it.
        fraction_key: older key of the share of the head width that turns, which now lies among the
            rotary settings; None where all of it turns.
        fraction: default of that share.
        rotary_kinds: scaling methods that the family's class accepts; empty for all.
        rotary_aliases: other name of a method -> the method.
        pairing: which numbers of a head turn together (`RotaryConfig.pairing`).
        pairing_key: key that says whether they are interleaved; None: `pairing` does.
        in_float32: cos and sin stay float32 (`RotaryConfig.in_float32`).
        quantized: methods of `quantization_config` (`quant_method`) whose weights are made numbers.
        kernel_axes: how its files store kernels, which are loaded as they are.
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
        """Keys that say something: read, or looked at to refuse what is not computed."""
        return frozenset({*self.defaults, *self.only, *self.generic})
