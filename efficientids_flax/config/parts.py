"""The parts of a model's configuration: latent attention, norms, layers that differ, adapters.

Letters: N heads, H head width, C width of a latent, L layers.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal, get_args

from efficientids_flax.config.record import Record, positive
from efficientids_flax.moved import left_names

Activation = Literal[
    "relu", "relu6", "squared_relu", "cubed_relu", "leaky_relu", "sine_relu", "elu", "sigmoid",
    "tanh", "gelu", "gelu_tanh", "gelu_10", "quick_gelu", "silu", "hard_silu", "mish", "laplace",
    "softplus", "sqrt_softplus", "exp", "identity",
]  # fmt: skip
DType = Literal["float32", "bfloat16", "float16", "float64"]
KernelAxes = Literal["in_out", "out_in"]


@dataclass(frozen=True)
class LatentAttentionConfig(Record):
    """Keys and values of all heads from one narrow latent of each token (arXiv 2405.04434).

    A cache keeps the latents. Only the last numbers of a head are rotated; all heads of keys share
    them.

    Attributes:
        latent_dims: C, width of the latent, which is normed.
        rotary_dims: how many numbers of a head's width H are rotated; they come last.
        value_dims: width of a head's values.
        query_dims: width of a latent of queries, which is normed; None: queries are computed from
            the input.
        norm_epsilon: epsilon of both norms, which are RMSNorms.
    """

    latent_dims: int
    rotary_dims: int
    value_dims: int
    query_dims: int | None = None
    norm_epsilon: float = 1e-6

    def problems(self) -> Collection[str]:
        """Sizes are positive."""
        return positive(
            self, "latent_dims", "rotary_dims", "value_dims", "query_dims", "norm_epsilon"
        )


NormPlace = Literal["attention", "mlp", "moe", "final", "query_key"]
"""Where a norm stands, see `NormPlacesConfig`."""
NORM_PLACES: tuple[NormPlace, ...] = get_args(NormPlace)
NORM_FIELDS = {  # field of `NormConfig` -> field of `BackboneConfig`
    "kind": "norm",
    "bias": "norm_bias",
    "epsilon": "norm_epsilon",
    "scale_plus_one": "norm_scale_plus_one",
}


@dataclass(frozen=True)
class NormConfig(Record):
    """Settings in which the norm of one place differs from the model's; None: as in the model.

    Attributes:
        kind, bias, epsilon, scale_plus_one: as `norm` and `norm_*` of `BackboneConfig`.
    """

    kind: Literal["layer_norm", "rms_norm"] | None = None
    bias: bool | None = None
    epsilon: float | None = None
    scale_plus_one: bool | None = None

    def problems(self) -> Collection[str]:
        """The epsilon is positive."""
        return positive(self, "epsilon")


@dataclass(frozen=True)
class NormPlacesConfig(Record):
    """Settings of norms that differ from the attention norm, by place.

    Attributes:
        mlp, moe: norms around the MLP or the experts of a layer.
        final: norm of the last hidden state.
        query_key: norms of queries and keys.
    """

    mlp: NormConfig | None = None
    moe: NormConfig | None = None
    final: NormConfig | None = None
    query_key: NormConfig | None = None

    def at(self, place: NormPlace) -> dict[str, Any]:
        """Field of `BackboneConfig` -> value, for the settings in which a place's norm differs."""
        own = getattr(self, place, None)
        found = {name: getattr(own, field, None) for field, name in NORM_FIELDS.items()}
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True)
class LayerSetting(Record):
    """One setting in which some layers differ from the model.

    Attributes:
        layers: these layers, ascending.
        key: a field of `BackboneConfig` ('activation'), or of a record in it
            ('rotary.max_timescale').
        value: a JSON value; null is possible.
    """

    layers: tuple[int, ...]
    key: str
    value: Any

    def problems(self) -> Collection[str]:
        """At least one layer, in ascending order."""
        if self.layers and list(self.layers) == sorted(set(self.layers)) and self.layers[0] >= 0:
            return ()
        return [f"layers: expected ascending layer numbers, found {list(self.layers)}"]

    def put(self, values: dict[str, Any]) -> None:
        """Write this setting into the JSON values of a configuration, in place."""
        *outer, name = self.key.split(".")
        node = values
        for part in outer:
            node[part] = inner = dict(node.get(part) or {})
            node = inner
        node[name] = self.value


@dataclass(frozen=True)
class AdapterConfig(Record):
    """MLP between item width and model width, with an activation after every layer, even the last.

    Attributes:
        num_layers: number of layers.
        hidden_dims: width between layers; None if there is only one.
        activation: applied after each layer.
    """

    num_layers: int = 1
    hidden_dims: int | None = None
    activation: Activation = "gelu_tanh"

    def problems(self) -> Collection[str]:
        """Sizes are positive; more than one layer needs a hidden width."""
        found = positive(self, "num_layers", "hidden_dims")
        if self.num_layers > 1 and self.hidden_dims is None:
            found.append(f"hidden_dims: {self.num_layers} layers need it, found null")
        return found


__getattr__ = left_names(__name__)
