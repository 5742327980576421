"""Base class of the recommenders: embed words and items, run the decoder, score.

Letters: B batch, T time, V words, I items.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from efficientids_flax.backbone import Decoder
from efficientids_flax.backbone.experts import LOSSES
from efficientids_flax.config import BackboneConfig, EfficientIDSConfig
from efficientids_flax.core.batch import as_arrays, check_batch, next_labels
from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.core.head import (
    INTERMEDIATES,
    HeadInputs,
    HierarchicalSoftmax,
    LossOutput,
    Source,
    settle_tables,
    top_items,
)
from efficientids_flax.core.model_checks import raise_listed
from efficientids_flax.parameters import LORA_A, LORA_B

Batch = Mapping[str, jax.Array]
Outputs = dict[str, jax.Array]

# Fields of a batch -> arguments of `__call__`, for messages.
CALLED = {
    "ids": "input_ids",
    "items": "item_ids",
    "words": "input_ids",
    "input_item_weights": "item_mask",
    "label_item_weights": "label_item_mask",
    "segment_pos": "positions",
}


class ItemModel(nn.Module):
    """Base class of both recommenders; takes batches with the original's field names.

    Its parameters are `pretrained_lm/`, `item_embedding/`, `cluster_embedding/` and the adapters;
    `efficientids_flax.parameters` lists them. The experts' load-balance losses are part of the loss
    if the collection `aux_losses` is mutable.
    """

    # Fields of the subclasses. Annotated at run time they would come before the subclasses' own.
    if TYPE_CHECKING:
        config: EfficientIDSConfig
        clustering_info: ClusteringInfo | None
        item_embedding_init: Source
        freeze_lm: bool
        remat: str | None

    def __post_init__(self) -> None:
        settle_tables(self, self.config)
        super().__post_init__()

    def setup(self) -> None:
        config, backbone = self.config, self.config.backbone
        self.pretrained_lm = Decoder(_as_it_is(backbone), self.remat)
        self.softmax = HierarchicalSoftmax(
            config=config,
            clustering_info=self.clustering_info,
            item_embedding_init=self.item_embedding_init,
            model_dims=backbone.model_dims,
            dtype=jnp.dtype(backbone.dtype),
            param_dtype=jnp.dtype(backbone.param_dtype),
        )
        nn.share_scope(self, self.softmax)

    def head_inputs(
        self,
        batch: Batch,
        deterministic: bool = True,
        *,
        words: bool = True,
        at: jax.Array | None = None,
        pretrained_lm_module: Decoder | None = None,
    ) -> HeadInputs:
        """Embed, run the decoder, and bring the tables to the query's width.

        Args:
            batch: `ids` int [B, T] (an item id where `input_item_weights` is 1), and if needed
                `paddings`, `segment_ids`, `segment_pos`, `inputs_indicator`, all [B, T].
            deterministic: no dropout.
            words: whether to compute the logits of words.
            at: int [B, P], times whose hidden states are needed; the last layer is computed only
                for these. None: all.
            pretrained_lm_module: a bound decoder, used instead of the model's own.

        Raises:
            ValueError: see `check_batch`.
        """
        config = self.config
        check_batch(config, batch)
        given = as_arrays(batch)
        decoder = pretrained_lm_module
        x, table = self.softmax.embed_items(given["ids"])
        if config.backbone.vocab_size:
            # As in the original, all ids are looked up in both tables, and one result is used.
            text = self._run(decoder, Decoder.embed, given["ids"])
            self.sow(INTERMEDIATES, "word_inputs", text)
            x = jnp.where(given["input_item_weights"][..., None] > 0, x, text)
        self.sow(INTERMEDIATES, "interleaved", x)
        hidden = self._run(
            decoder,
            _hidden,
            x,
            paddings=given.get("paddings"),
            segment_ids=given.get("segment_ids"),
            positions=given.get("segment_pos"),
            inputs_indicator=given.get("inputs_indicator"),
            deterministic=deterministic,
            at=at,
        )
        logits = None
        if config.backbone.gives_words and (words or self.is_initializing()):
            logits = self.word_logits(hidden, decoder)
        return self.softmax.inputs(hidden, logits, table)

    def word_logits(self, hidden: jax.Array, decoder: Decoder | None = None) -> jax.Array:
        """Logits of words in the first softmax: [B, T, D] -> float32 [B, T, V], before the cap."""
        return self._run(decoder, _word_logits, self.softmax.scaled(hidden))

    def loss(
        self,
        batch: Batch,
        *,
        train: bool = True,
        deterministic: bool = True,
        pretrained_lm_module: Decoder | None = None,
    ) -> LossOutput:
        """The loss of a batch with `labels`, `weights` and `label_item_weights`, all [B, T].

        Scores of the whole catalogue are computed only for the z-loss or under full softmax.

        Args:
            batch: see `head_inputs`.
            train: whether labels are smoothed (otherwise only with `label_smoothing_in_eval`).
            deterministic: no dropout.
            pretrained_lm_module: a bound decoder, used instead of the model's own.

        Raises:
            ValueError: see `check_batch`.
        """
        check_batch(self.config, batch, labels=True)
        inputs = self.head_inputs(batch, deterministic, pretrained_lm_module=pretrained_lm_module)
        return self.loss_of(inputs, batch, train)

    def loss_of(self, inputs: HeadInputs, batch: Batch, train: bool = True) -> LossOutput:
        """`loss` of what `head_inputs` gave for the batch."""
        is_item = batch.get("label_item_weights")
        losses = self.variables.get(LOSSES, ()) if self.is_mutable_collection(LOSSES) else ()
        return self.softmax.head.loss(
            inputs,
            jnp.asarray(batch["labels"]),
            jnp.asarray(batch["weights"]),
            None if is_item is None else jnp.asarray(is_item),
            train,
            losses,
        )

    def scores(
        self,
        batch: Batch,
        correction: bool | None = None,
        *,
        pretrained_lm_module: Decoder | None = None,
    ) -> jax.Array:
        """Scores of all items at every position, float32 [B, T, I]; see `Head.scores`."""
        inputs = self.head_inputs(batch, words=False, pretrained_lm_module=pretrained_lm_module)
        return self.softmax.head.scores(inputs, correction)

    def evaluation_logits(
        self, batch: Batch, *, pretrained_lm_module: Decoder | None = None
    ) -> jax.Array:
        """The original's evaluation scores, float32 [B, T, V + I]: words score -inf, or -cap."""
        inputs = self.head_inputs(batch, pretrained_lm_module=pretrained_lm_module)
        return self.softmax.head.evaluation_logits(inputs)

    def log_probs(self, batch: Batch, *, pretrained_lm_module: Decoder | None = None) -> jax.Array:
        """Log-probabilities of words and items, float32 [B, T, V + I]; rows sum to one."""
        inputs = self.head_inputs(batch, pretrained_lm_module=pretrained_lm_module)
        return self.softmax.head.log_probs(inputs)

    def _outputs(
        self,
        given: Mapping[str, Any],
        training: bool,
        top_k: int | None,
        decoder: Decoder | None,
        names: Mapping[str, str],
    ) -> Outputs:
        """Loss and metrics if there are labels; scores or the best items outside of training.

        `given` holds fields of a batch, None for those that the caller left out; `names` maps them
        to the caller's argument names, for messages.
        """
        batch = as_arrays(given, names)
        wanted = "labels" in batch
        problems = [
            f"{names.get(name, name)}: given without the labels that it belongs to"
            for name in ("weights", "label_item_weights")
            if name in batch and not wanted
        ]
        if training and top_k is not None:
            problems.append(f"top_k: found {top_k}; in training there are no scores")
        raise_listed("batch", problems)
        if wanted and "weights" not in batch:
            paddings = batch.get("paddings", jnp.zeros(batch["labels"].shape))
            batch["weights"] = 1.0 - paddings.astype(jnp.float32)
        check_batch(self.config, batch, labels=wanted, names=names)
        if training and not wanted:
            batch, wanted = batch | next_labels(self.config, batch), True
        inputs = self.head_inputs(
            batch, not training, words=training or wanted, pretrained_lm_module=decoder
        )
        outputs: Outputs = self.loss_of(inputs, batch, training).metrics() if wanted else {}
        if training:
            return outputs
        scores = self.softmax.head.scores(inputs)
        if top_k is None:
            return outputs | {"scores": scores}
        best = top_items(scores, top_k)
        return outputs | {"items": best.ids, "scores": best.scores}

    def _run(
        self, decoder: Decoder | None, function: Callable[..., jax.Array], *args: Any, **named: Any
    ) -> jax.Array:
        """Call `function(decoder, ...)` with the given decoder or the model's own, frozen or not.

        A frozen decoder passes gradients on to its input, but its parameters get none.
        """
        if decoder is None:
            if self.freeze_lm:
                function = nn.map_variables(
                    function,
                    "params",
                    trans_in_fn=_stopped,
                    init=self.is_initializing(),
                    mutable=True,
                )
            return function(self.pretrained_lm, *args, **named)
        own, variables = _unbound(decoder, self.config.backbone)
        own = own.clone(config=_as_it_is(own.config))
        rngs = None
        if not named.get("deterministic", True) and self.has_rng("dropout"):
            rngs = {"dropout": self.make_rng("dropout")}
        if self.freeze_lm:
            variables = _stopped(variables)
        return own.apply(variables, *args, method=function, rngs=rngs, **named)  # pyright: ignore[reportReturnType]


def _hidden(decoder: Decoder, x: jax.Array, **named: Any) -> jax.Array:
    return decoder(inputs_embeds=x, **named)


def _word_logits(decoder: Decoder, hidden: jax.Array) -> jax.Array:
    """[B, T, V], without the decoder's own scale and cap: the head applies its own."""
    return decoder.head(hidden) / decoder.config.logits_divisor


def _unbound(decoder: Any, wanted: BackboneConfig) -> tuple[Decoder, Any]:
    """Module and variables of a decoder that was given instead of the model's own."""
    if not isinstance(decoder, Decoder) or decoder.scope is None:
        found = "one without parameters" if isinstance(decoder, Decoder) else type(decoder).__name__
        raise ValueError(
            f"pretrained_lm_module: found {found}, expected a Decoder bound to its parameters: "
            'Decoder(config).bind({"params": params})'
        )
    raise_listed(
        "pretrained_lm_module",
        [
            f"{name}: found {getattr(decoder.config, name)}, the model has {getattr(wanted, name)}"
            for name in ("vocab_size", "model_dims")
            if getattr(decoder.config, name) != getattr(wanted, name)
        ],
    )
    return decoder.unbind()


def _stopped(tree: Any) -> Any:
    """Stop the gradients of all leaves except LoRA parameters."""

    def stop(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        return leaf if path[-1].key in (LORA_A, LORA_B) else jax.lax.stop_gradient(leaf)

    return jax.tree_util.tree_map_with_path(stop, tree)


def _as_it_is(config: BackboneConfig) -> BackboneConfig:
    """Configure the decoder not to scale its inputs: words are scaled already, items never are."""
    return replace(config, scale_injected_embeddings=False)
