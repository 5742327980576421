"""The decoder: ids or embeddings in, hidden states and logits out.

Computes what Praxis' `TransformerLm` computes (praxis/layers/transformer_models.py) and, with other
values of its configuration, what the HuggingFace families compute. Letters: B batch, T time, D
model width, V words, L layers.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from efficientids_flax.backbone.attention import Surroundings, make_surroundings
from efficientids_flax.backbone.cache import KVCache, LayerCache, count_tokens, note_tokens
from efficientids_flax.backbone.inputs import Inputs, complete, rows_at
from efficientids_flax.backbone.layer import keeps_apart, make_layers
from efficientids_flax.backbone.layers import (
    INTERMEDIATES,
    Dense,
    Embedding,
    LmHead,
    Norm,
    sinusoids,
    soft_cap,
    stream_dtype,
)
from efficientids_flax.backbone.masks import Marks
from efficientids_flax.config import BackboneConfig
from efficientids_flax.sharding import constrain

# The `jax.checkpoint_policies` that take no arguments.
REMAT_POLICIES = (
    "nothing_saveable",
    "dots_saveable",
    "dots_with_no_batch_dims_saveable",
    "everything_saveable",
    "checkpoint_dots",
    "checkpoint_dots_with_no_batch_dims",
)


class Decoder(nn.Module):
    """A language model without its loss.

    Attributes:
        config: configuration of the model.
        remat: policy of `jax.checkpoint_policies` for the rematerialisation of layers in the
            backward pass, such as 'nothing_saveable'; None: only the inside of norms and
            activations is recomputed.

    Raises:
        ValueError: `remat` is not in `REMAT_POLICIES`.
    """

    config: BackboneConfig
    remat: str | None = None

    def __post_init__(self) -> None:
        if self.remat is not None and self.remat not in REMAT_POLICIES:
            known = ", ".join(map(repr, REMAT_POLICIES))
            raise ValueError(f"remat: found {self.remat!r}, expected null or one of {known}")
        super().__post_init__()

    def setup(self) -> None:
        config = self.config
        if config.vocab_size:
            if config.lm_head:
                self.lm_head = LmHead(config)
            if not config.tied_embeddings:
                self.embedder = Embedding(config.vocab_size, config, config.embedding_dims)
            if config.embedding_dims is not None:
                self.embedding_projection = Dense(config.model_dims, False, config)
                if config.lm_head:
                    self.output_projection = Dense(config.embedding_dims, False, config)
        if config.position_embedding == "learned":
            assert config.max_positions is not None
            rows = config.position_offset + config.max_positions
            self.position_embedding = Embedding(rows, config)
        if config.final_norm:
            self.final_norm = Norm(config.of_norm("final"))
        if config.embedding_norm:
            self.embedding_norm = Norm(config)
        self.input_dropout = nn.Dropout(config.input_dropout)
        self.layers = make_layers(config, self.remat)

    def embed(self, ids: jax.Array) -> jax.Array:
        """Word embeddings, scaled as configured: int [B, T] -> [B, T, D]."""
        rows = self.lm_head.embed(ids) if self.config.tied_embeddings else self.embedder(ids)
        self.sow(INTERMEDIATES, "word_rows", rows)
        words = self._widened(self._scaled(rows))
        self.sow(INTERMEDIATES, "word_embeddings", words)
        return words

    def __call__(
        self,
        ids: jax.Array | None = None,
        *,
        inputs_embeds: jax.Array | None = None,
        paddings: jax.Array | None = None,
        segment_ids: jax.Array | None = None,
        positions: jax.Array | None = None,
        inputs_indicator: jax.Array | None = None,
        deterministic: bool = True,
        at: jax.Array | None = None,
    ) -> jax.Array:
        """Hidden states after the final norm.

        Args:
            ids: int [B, T]; or
            inputs_embeds: [B, T, D] instead of word embeddings, without positions added; with
                `embedding_dims` also [B, T, E], which are projected like word embeddings.
            paddings: [B, T], 1 on padding, on either side; None: no padding.
            segment_ids: int [B, T], for packed sequences; None: all tokens but padding are one
                segment. (`masks.segments_from_positions` derives them from positions.)
            positions: int [B, T], positions in the segment. None: count from 0 over the row,
                including padding, unless `positions_pass_padding` is set.
                (`masks.positions_from_paddings` skips padding.)
            inputs_indicator: [B, T], 1 on the prefix, for `attention_mask='prefix'`.
            deterministic: no dropout.
            at: int [B, M], places in the row whose hidden states are needed (-1: the last one);
                None: all. The last layer, unless it is scanned, is computed only for these.

        Returns:
            [B, T, D] or [B, M, D], in the configured dtype.

        Raises:
            ValueError: listing every argument with a wrong shape or dtype or, outside of jit, with
                values out of range (inside jit, words and learned positions out of range embed to
                zeros).
        """
        given = Inputs(
            ids, inputs_embeds, paddings, segment_ids, positions, inputs_indicator, at=at
        )
        tokens = complete(self.config, given)
        x = self._embedded(ids, inputs_embeds, tokens.positions)
        x = self.input_dropout(x, deterministic=deterministic)
        marks = Marks(jnp.arange(x.shape[1]), tokens.segments, tokens.prefix)
        around = make_surroundings(self.config, tokens, marks, marks, tokens.positions)
        return self.run_layers(x, around, deterministic, None, at)[0]

    def extend(
        self,
        ids: jax.Array | None = None,
        cache: KVCache | None = None,
        *,
        inputs_embeds: jax.Array | None = None,
        paddings: jax.Array | None = None,
        segment_ids: jax.Array | None = None,
        positions: jax.Array | None = None,
        inputs_indicator: jax.Array | None = None,
        at: jax.Array | None = None,
    ) -> tuple[jax.Array, KVCache]:
        """Hidden states of new tokens that follow those in a cache, as if `__call__` read them all.

        Two results can differ from a single call: the capacity of experts depends on the number of
        tokens in one call, and 'dynamic' and 'longrope' rotation depends on the longest position so
        far, while cached keys keep their rotation (as in HuggingFace).

        Args:
            ids: int [B, T]; or `inputs_embeds`. All arguments are as in `__call__`, for the new
                tokens; by default `positions` continue from the row's length in the cache.
            cache: from `make_cache`, with room for T more tokens.

        Returns:
            ([B, T, D] or [B, M, D], the cache with the tokens in it).

        Raises:
            ValueError: the cache is missing or has no room; or as in `__call__`.
        """
        if cache is None:
            raise ValueError("cache: missing; make one with make_cache")
        given = Inputs(
            ids, inputs_embeds, paddings, segment_ids, positions, inputs_indicator, cache.used,
            count_tokens(cache) if self.config.positions_pass_padding else None, at,
        )  # fmt: skip
        tokens = complete(self.config, given)
        x = self._embedded(ids, inputs_embeds, tokens.positions)
        grown = note_tokens(cache, tokens)
        queries = Marks(cache.used + jnp.arange(x.shape[1]), tokens.segments, tokens.prefix)
        around = make_surroundings(
            self.config, tokens, queries, grown.marks(), grown.positions, cache.used
        )
        x, layers = self.run_layers(x, around, True, cache.layers, at)
        assert layers is not None
        return x, grown.replace(layers=layers)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """[B, T, D] -> float32 [B, T, V], scaled and capped as configured."""
        config = self.config
        if config.scale_before_logits:
            hidden = hidden * config.model_dims**-0.5
        logits = self.head(hidden) / config.logits_divisor
        logits = soft_cap(logits, config.final_logit_cap)
        if config.logits_clip is not None:
            logits = jnp.clip(logits, -config.logits_clip, config.logits_clip)
        self.sow(INTERMEDIATES, "logits", logits)
        return logits

    def head(self, hidden: jax.Array) -> jax.Array:
        """[B, T, D] -> float32 [B, T, V], only the head's product, without scale and cap.

        Raises:
            ValueError: the model has no head.
        """
        if not self.config.gives_words:
            raise ValueError(
                "the decoder has no head (lm_head false or vocab_size 0): it gives hidden states, "
                "and no logits of words"
            )
        narrow = self.config.embedding_dims is not None
        return self.lm_head(self.output_projection(hidden) if narrow else hidden)

    def run_layers(
        self,
        x: jax.Array,
        around: Surroundings,
        deterministic: bool = True,
        caches: tuple[LayerCache, ...] | None = None,
        at: jax.Array | None = None,
    ) -> tuple[jax.Array, tuple[LayerCache, ...] | None]:
        """All layers and the final norm: [B, T, D] -> [B, T, D], or [B, M, D] at the places `at`.

        Also returns the caches with the new keys; None without caches.
        """
        last = self.config.num_layers - 1
        early = at is not None and deterministic and keeps_apart(self.config, last)
        for kind, mask in around.masks.items():
            self.sow(INTERMEDIATES, f"mask_{kind}", mask)
        x = constrain(x, "B T D")
        self.sow(INTERMEDIATES, "layer_input", x)
        if not isinstance(self.layers, Sequence):
            x, caches = self.layers(x, caches, around, deterministic)
            early = False
        elif caches is None:
            for index, layer in enumerate(self.layers):
                x = layer(x, around, deterministic, at if early and index == last else None)
        else:
            grown = []
            for index, (layer, cache) in enumerate(zip(self.layers, caches, strict=True)):
                x, one = layer.extend(x, around, cache, at if early and index == last else None)
                grown.append(one)
            caches = tuple(grown)
        x = x if early else rows_at(x, at)
        return (self.final_norm(x).astype(x.dtype) if self.config.final_norm else x), caches

    def _embedded(
        self, ids: jax.Array | None, inputs_embeds: jax.Array | None, positions: jax.Array
    ) -> jax.Array:
        """The input of the first layer, before its dropout."""
        config = self.config
        if ids is not None:
            x = self.embed(ids)
        else:
            assert inputs_embeds is not None
            x = jnp.asarray(inputs_embeds).astype(stream_dtype(config))
            x = self._scaled(x) if config.scale_injected_embeddings else x
            x = self._widened(x)
        if config.embedding_norm:
            x = self.embedding_norm(x).astype(x.dtype)
        places = None
        if config.position_embedding == "learned":
            places = self.position_embedding(positions + config.position_offset)
        elif config.position_embedding == "sinusoidal":
            ends = config.position_min_timescale, config.position_max_timescale
            places = sinusoids(positions, config.model_dims, *ends).astype(x.dtype)
        if places is not None:
            self.sow(INTERMEDIATES, "position_embeddings", places)
            x = x + places
        return x

    def _scaled(self, x: jax.Array) -> jax.Array:
        """Multiply by the scale, rounded to the dtype of the embeddings (as in Gemma)."""
        scale = self.config.embedding_scale
        if scale == "none":
            return x
        factor = math.sqrt(self.config.model_dims) if scale == "sqrt_dim" else scale
        return x * jnp.asarray(factor, x.dtype)

    def _widened(self, x: jax.Array) -> jax.Array:
        """Project embeddings of another width to the model's: [B, T, E] -> [B, T, D]."""
        if x.shape[-1] == self.config.model_dims:
            return x
        return self.embedding_projection(x).astype(x.dtype)
