"""The decoder's configuration: how to read a tree of parameters, and what the tree does not show.

The decoder computes what Praxis' `TransformerLm` computes and, with other values, what the
HuggingFace families compute.

Letters: D model width, N heads, H head width, F hidden width of the MLP, V words, L layers.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from efficientids_flax.config.checks import (
    kernel_problems,
    latent_problems,
    layer_problems,
    number_problems,
    option_problems,
    rotary_problems,
    setting_problems,
)
from efficientids_flax.config.experts import MoEConfig
from efficientids_flax.config.lora import LoraConfig
from efficientids_flax.config.parts import (
    Activation,
    DType,
    KernelAxes,
    LatentAttentionConfig,
    LayerSetting,
    NormPlace,
    NormPlacesConfig,
)
from efficientids_flax.config.positions import (
    AlibiConfig,
    PositionScalingConfig,
    RelativeBiasConfig,
    RotaryConfig,
)
from efficientids_flax.config.record import Record


@dataclass(frozen=True)
class BackboneConfig(Record):
    """The decoder: embeddings in, logits out.

    Attributes:
        vocab_size: V; 0 for a model without words.
        num_layers, model_dims, hidden_dims: L, D, F.
        num_heads, num_kv_heads, head_dim: N, heads of keys and values, H.
        scan_layers, layers_per_block: layers stacked on a leading axis L / layers_per_block and
            scanned; layer `block * layers_per_block + j` is `block_{j}` of a block.
        dtype, param_dtype: dtypes of the computation (norms and softmax: float32) and of the
            parameters.
        kernel_axes: axis order of the kernels of projections, MLP and head; results do not depend
            on it. 'in_out' is PAXml's [D,F], 'out_in' PyTorch's [F,D]. `attention/out` is [D,N,H]
            in both. Experts are [X,D,F]; with 'out_in' and the gating 'top_k', [X,F,D].
        attention_mask: which keys a query attends to; 'prefix' adds keys that the batch marks as
            prefix.
        norm, norm_bias, norm_epsilon: kind of all norms without settings of their own in `norms`.
        norms: settings of norms that differ by their place (Praxis has a template for each), see
            `of_norm`.
        norm_scale: whether norms have a scale (OLMo's have none).
        norm_scale_plus_one: the stored scale is added to 1 (Praxis' `direct_scale=False`, the
            default of its LayerNorm; Gemma), for RMSNorm and LayerNorm.
        norm_scale_in_float32: multiply by the scale before the cast to `dtype` (Gemma, OLMo2).
        norm_policy: 'pre' x + f(n(x)); 'post' x + n(f(x)); 'post_skip' n(x + f(x));
            'primer_hybrid' x + n2(f(n1(x))); 'pre_skip' n(x) + f(n(x)) (an option of Bloom).
        final_norm: whether the last hidden state is normed.
        parallel_residual: attention and MLP both read the layer's input (GPT-NeoX).
        shared_norm: with `parallel_residual`, attention and MLP share one norm (GPT-J).
        mlp_adds_input: with `parallel_residual`, the input of the MLP is added to its output
            (Praxis' `add_skip_connection` in saxml's `ParallelTransformer`).
        attention_residual_weight, mlp_residual_weight: x + weight * f(x).
        lm_head: whether there is a head. Without one, as in text embedders and classifiers, there
            are hidden states but no logits, and a recommender's softmax has no words.
        tied_embeddings: the input embedding is the head's kernel.
        embedding_dims: width E of word embeddings and head, if it is not D; they are projected to D
            before the first layer, and to E before the head (OPT 350M).
        embedding_scale: factor of word embeddings: 'sqrt_dim', 'none' or a number.
        embedding_norm: embeddings, also injected ones, are normed before the first layer (Bloom).
        scale_injected_embeddings: the factor also applies to embeddings given instead of ids.
        position_embedding: added to the input: 'learned' [max_positions,D], 'sinusoidal', 'none'.
        position_offset: row of the first learned position; rows before it are additional (OPT).
        positions_pass_padding: default positions count tokens without padding (OPT); else they
            count all places of the row.
        position_min_timescale, position_max_timescale: time scales of the sinusoids.
        rotary: rotation of queries and keys; independent of `position_embedding`.
        sliding_rotary: rotation in layers with a sliding window, if it differs (Gemma3).
        no_rotary_layers: layers without rotation (SmolLM3).
        alibi: biases on the logits by the position of keys, see `AlibiConfig`; None: no biases.
        fused_qkv: one kernel [3,D,N,H] ('in_out') instead of three.
        multi_query: keys and values have one head, with kernels [D,H] ('in_out').
        qkv_bias, attention_out_bias: biases of the projections.
        query_scaling: 'inverse_sqrt_head_dim' H^-0.5; 'per_dim_scale' a parameter [H] s, with
            1.442695041 H^-0.5 softplus(s); 'none'; or a number that multiplies.
        qkv_clip: queries, keys and values are clipped to [-clip, clip] (OLMo); None: no clipping.
        qkv_clip_after_norm: clip after the norm of queries and keys (OLMoE), else before it.
        query_position_scaling: queries grow with their position, see `PositionScalingConfig`.
        qk_norm: norm of queries and keys: 'per_head' with one scale [H] for all of them,
            'each_head' with a scale [N,H] (Cohere), 'full' over all heads at once.
        qk_norm_after_rotary: it follows the rotation (Praxis) or precedes it (HuggingFace).
        attention_logit_cap, final_logit_cap: cap * tanh(logits / cap); None: no cap.
        attention_extra_logit: an additional logit of each query that belongs to no key, so that its
            probabilities sum to less than one; None: no such logit (0 is a logit of 0).
        attention_sinks: the same with a parameter [N], a logit for each head (gpt-oss).
        latent_attention: keys and values are computed from a narrow latent (DeepSeek); None: from
            the input.
        relative_key_dims: queries are also multiplied with sinusoids of the distance, of this
            width, projected to heads (Transformer-XL, arXiv 1901.02860); with `qkv_bias`, queries
            have one bias for keys and one for distances.
        sliding_window: attend only to keys within this distance back (key > query - window).
        sliding_window_ahead: in layers with a window, attend only to keys within this distance
            ahead (key < query + window), if the mask allows later keys; None: no limit.
        layer_types: one for each layer; empty: all slide if there is a window, else none.
        layer_settings: settings in which some layers differ, see `of_layer`.
        attention_implementation: 'exact' is our own; 'xla' and 'cudnn' are those of
            `jax.nn.dot_product_attention`, without caps, dropout, extra logit and relative keys.
            'cudnn' needs a GPU and half precision, and has no relative bias.
        gated_mlp: act(gate(x)) * up(x).
        mlp_padding_first: padding is set to zero before the MLP and in its residual (Praxis'
            `apply_padding_first`); otherwise the MLP adds nothing to padding.
        lora: low-rank additions to the projections, see `backbone.lora`.
        lm_head_bias: bias [V] of the head.
        scale_before_logits: the hidden state is multiplied by D^-0.5 before the head.
        logits_divisor: logits are divided by it (Granite).
        logits_clip: logits are clipped to [-clip, clip] after their cap; None: no clipping.
        *_dropout: rates; `mlp_dropout` after the activation, `input_dropout` after the embeddings.
        label_smoothing, label_smoothing_in_eval, z_loss_weight: for the language-model loss.
        loss_average: divisor of the sums of losses: the 'weights', or the number of 'positions' of
            the batch (Praxis' `GShardSharedEmbeddingSoftmax`).
    """

    vocab_size: int
    num_layers: int
    model_dims: int
    hidden_dims: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    scan_layers: bool = False
    layers_per_block: int = 1
    dtype: DType = "float32"
    param_dtype: DType = "float32"
    kernel_axes: KernelAxes = "in_out"
    attention_mask: Literal["causal", "bidirectional", "prefix"] = "causal"

    norm: Literal["layer_norm", "rms_norm"] = "rms_norm"
    norm_policy: Literal["pre", "pre_skip", "post", "post_skip", "primer_hybrid"] = "pre"
    norm_epsilon: float = 1e-6
    norm_bias: bool = False
    norm_scale: bool = True
    norm_scale_plus_one: bool = False
    norm_scale_in_float32: bool = False
    norms: NormPlacesConfig | None = None
    final_norm: bool = True
    parallel_residual: bool = False
    shared_norm: bool = False
    mlp_adds_input: bool = False
    attention_residual_weight: float = 1.0
    mlp_residual_weight: float = 1.0

    lm_head: bool = True
    tied_embeddings: bool = True
    embedding_dims: int | None = None
    embedding_scale: Literal["none", "sqrt_dim"] | float = "none"
    embedding_norm: bool = False
    scale_injected_embeddings: bool = False
    position_embedding: Literal["none", "learned", "sinusoidal"] = "none"
    max_positions: int | None = None
    position_offset: int = 0
    positions_pass_padding: bool = False
    position_min_timescale: float = 1.0
    position_max_timescale: float = 10_000.0
    rotary: RotaryConfig | None = None
    sliding_rotary: RotaryConfig | None = None
    no_rotary_layers: tuple[int, ...] = ()
    alibi: AlibiConfig | None = None

    fused_qkv: bool = False
    multi_query: bool = False
    qkv_bias: bool = False
    attention_out_bias: bool = False
    query_scaling: Literal["inverse_sqrt_head_dim", "per_dim_scale", "none"] | float = (
        "inverse_sqrt_head_dim"
    )
    qkv_clip: float | None = None
    qkv_clip_after_norm: bool = False
    query_position_scaling: PositionScalingConfig | None = None
    qk_norm: Literal["none", "per_head", "each_head", "full"] = "none"
    qk_norm_after_rotary: bool = False
    attention_logit_cap: float | None = None
    attention_extra_logit: float | None = None
    attention_sinks: bool = False
    latent_attention: LatentAttentionConfig | None = None
    relative_key_dims: int | None = None
    sliding_window: int | None = None
    sliding_window_ahead: int | None = None
    layer_types: tuple[Literal["full", "sliding"], ...] = ()
    layer_settings: tuple[LayerSetting, ...] = ()
    relative_bias: RelativeBiasConfig | None = None
    attention_implementation: Literal["exact", "xla", "cudnn"] = "exact"

    gated_mlp: bool = False
    activation: Activation = "relu"
    mlp_bias: bool = False
    mlp_padding_first: bool = False
    moe: MoEConfig | None = None
    lora: LoraConfig | None = None

    lm_head_bias: bool = False
    final_logit_cap: float | None = None
    scale_before_logits: bool = False
    logits_divisor: float = 1.0
    logits_clip: float | None = None

    input_dropout: float = 0.0
    attention_dropout: float = 0.0
    residual_dropout: float = 0.0
    mlp_dropout: float = 0.0

    label_smoothing: float = 0.0
    label_smoothing_in_eval: bool = True
    z_loss_weight: float = 0.0
    loss_average: Literal["weights", "positions"] = "weights"

    def problems(self) -> Collection[str]:
        """Sizes fit together; options that an option needs are set."""
        if found := number_problems(self):
            return found
        found = option_problems(self) + rotary_problems(self) + latent_problems(self)
        found += kernel_problems(self) + layer_problems(self)
        found += setting_problems(self) if self.layer_settings and not found else []
        return found + (self.lora.unfit(self.projections) if self.lora else [])

    @property
    def gives_words(self) -> bool:
        """Whether there are logits of words."""
        return self.vocab_size > 0 and self.lm_head

    def of_norm(self, place: NormPlace) -> "BackboneConfig":
        """This configuration, with `norm` and `norm_*` replaced by the settings of one place."""
        return _of_norm(self, place) if self.norms is not None else self

    def of_layer(self, index: int) -> "BackboneConfig":
        """The configuration of one layer: this, with `layer_settings` applied.

        Args:
            index: number of the layer; for scanned layers, the layer's index in its block.
        """
        return _of_layer(self, index) if self.layer_settings else self

    @property
    def projections(self) -> tuple[str, ...]:
        """Names of each layer's projections that LoRA can adapt."""
        qkv = ("qkv",) if self.fused_qkv else ("query", "key", "value")
        attention = () if self.latent_attention else (*qkv, "out")
        mlp = ("up", "gate", "down") if self.gated_mlp else ("up", "down")
        return (*(f"attention/{name}" for name in attention), *(f"mlp/{name}" for name in mlp))

    @property
    def rotary_width(self) -> int:
        """Width of the part of a head that rotary positions can rotate."""
        return self.latent_attention.rotary_dims if self.latent_attention else self.head_dim

    @property
    def cached(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Heads and width of the two arrays that a cache keeps of each token."""
        if (own := self.latent_attention) is not None:
            return (1, own.latent_dims), (1, own.rotary_dims)
        one = (self.num_kv_heads, self.head_dim)
        return one, one


@lru_cache(maxsize=256)
def _of_norm(config: BackboneConfig, place: NormPlace) -> BackboneConfig:
    assert config.norms is not None
    return replace(config, norms=None, **config.norms.at(place))


@lru_cache(maxsize=256)
def _of_layer(config: BackboneConfig, index: int) -> BackboneConfig:
    values = {**config.to_dict(), "layer_settings": ()}
    for setting in config.layer_settings:
        if index in setting.layers:
            setting.put(values)
    if values["norms"]:
        values["norms"] = {**values["norms"], "final": None}  # not in a layer
    return BackboneConfig.from_dict(values)
