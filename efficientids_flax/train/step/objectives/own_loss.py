"""Objectives of this package's models, which have their own loss.

`module` is trained, with the requested precision and rematerialisation. `evaluated` is the model as
it was given, since that is how it is exported and served.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from efficientids_flax.backbone import Decoder
from efficientids_flax.backbone.experts import LOSSES
from efficientids_flax.core.head.measures import Scoring
from efficientids_flax.core.item_model import ItemModel
from efficientids_flax.core.labelled import label_positions, label_times
from efficientids_flax.core.measuring import evaluation_sums, sums_of_positions
from efficientids_flax.core.metrics import token_sums
from efficientids_flax.core.models import EfficientIDSModel
from efficientids_flax.core.touching import most_touched, touched_rows
from efficientids_flax.forecast import TimesFM, forecast_loss, model_inputs
from efficientids_flax.losses import LanguageModelLoss, language_model_loss
from efficientids_flax.train.step.function import NamedBatch
from efficientids_flax.train.step.mean import Means
from efficientids_flax.train.step.objectives.parts import (
    Batch,
    Gathering,
    Objective,
    Sums,
    streams,
)
from efficientids_flax.train.step.returned import WEIGHT
from efficientids_flax.train.step.rows import ItemTable

LARGE = 1 << 13  # items; for fewer, a pass over the catalogue costs little beside the model
REMAT = "nothing_saveable"


def of_item_model(
    evaluated: ItemModel, mixed_precision: bool, remat: bool, scoring: Scoring, exclude_seen: bool
) -> Objective:
    """Objective of a recommender."""
    module = _item_model(evaluated, mixed_precision, remat)

    def loss(
        params: Any, batch: Batch, model_state: Any, rng: jax.Array, apply_fn: Callable[..., Any]
    ) -> Any:
        found, _ = apply_fn(
            {"params": params}, batch, train=True, deterministic=False, method="loss",
            rngs=streams(rng), mutable=[LOSSES],
        )  # fmt: skip
        metrics = {"avg_xent": found.avg_xent, "aux_loss": found.aux_loss}
        return found.loss, metrics | {WEIGHT: found.total_weight}, model_state

    def sums(params: Any, batch: Batch, model_state: Any) -> Sums:
        del model_state
        return evaluation_sums(evaluated, params, batch, scoring=scoring, exclude_seen=exclude_seen)

    def init(rng: jax.Array, batch: Batch) -> Mapping[str, Any]:
        made = module.init(streams(rng), NamedBatch(batch), method="loss")
        return {"params": made["params"]}

    items, clustering = None, module.clustering_info
    if clustering is not None and not module.config.full_softmax:
        items = ItemTable(
            clustering,
            lambda batch: touched_rows(module.config, clustering, batch),
            lambda batch: most_touched(clustering, batch),
        )
    gathering = None
    if module.config.num_items > LARGE:
        gathering = Gathering(
            lambda batch: label_times(module.config, batch),
            lambda params, batch, times: label_positions(
                evaluated, params, batch, times, exclude_seen=exclude_seen
            ),
            lambda params, asked: sums_of_positions(evaluated, params, asked, scoring=scoring),
        )
    return Objective(
        module, loss, sums, init, module.config, True, items=items, gathering=gathering
    )


def of_decoder(evaluated: Decoder, mixed_precision: bool, remat: bool) -> Objective:
    """Objective of a language model."""
    module = Decoder(*_in_training(evaluated, mixed_precision, remat))

    def logits(decoder: Decoder, batch: Batch, deterministic: bool) -> jax.Array:
        hidden = decoder(
            batch["ids"],
            paddings=batch.get("paddings"),
            segment_ids=batch.get("segment_ids"),
            positions=batch.get("segment_pos"),
            inputs_indicator=batch.get("inputs_indicator"),
            deterministic=deterministic,
        )
        return decoder.logits(hidden)

    def run(
        apply_fn: Callable[..., Any], params: Any, batch: Batch, rng: jax.Array | None
    ) -> LanguageModelLoss:
        found, collections = apply_fn(
            {"params": params}, batch, rng is None, method=logits, mutable=[LOSSES],
            rngs=None if rng is None else streams(rng),
        )  # fmt: skip
        auxiliary = collections.get(LOSSES, ())
        return language_model_loss(module.config, found, batch, auxiliary, train=rng is not None)

    def loss(
        params: Any, batch: Batch, model_state: Any, rng: jax.Array, apply_fn: Callable[..., Any]
    ) -> Any:
        found = run(apply_fn, params, batch, rng)
        metrics = {"avg_xent": found.avg_xent, "aux_loss": found.aux_loss}
        metrics |= {"accuracy": found.accuracy, WEIGHT: found.total_weight}
        return found.total_loss, metrics, model_state

    def sums(params: Any, batch: Batch, model_state: Any) -> Sums:
        del model_state
        found = run(evaluated.apply, params, batch, None)
        correct = found.per_example_argmax == batch["labels"]
        correct &= ~jnp.isnan(found.per_example_xent)  # argmax takes the first NaN for the largest
        weights = jnp.asarray(batch["weights"])
        return {
            "loss": token_sums(
                found.per_example_xent, weights, aux_loss=found.aux_loss, correct=correct
            )
        }

    def init(rng: jax.Array, batch: Batch) -> Mapping[str, Any]:
        made = module.init(streams(rng), NamedBatch(batch), True, method=logits)
        return {"params": made["params"]}

    return Objective(module, loss, sums, init, module.config, True)


def of_forecaster(evaluated: TimesFM, mixed_precision: bool, remat: bool) -> Objective:
    """Objective of TimesFM, with the loss of the `timesfm` package's fine-tuning."""
    module = TimesFM(*_in_training(evaluated, mixed_precision, remat))

    def run(apply_fn: Callable[..., Any], params: Any, batch: Batch, train: bool) -> Any:
        series, paddings, frequencies = model_inputs(module.config, batch)
        found = apply_fn({"params": params}, series, paddings, frequencies, train=train, last=True)
        future, holes = batch["actual_ts"], batch.get("actual_padding")
        return forecast_loss(module.config, found.values, future, holes)

    def loss(
        params: Any, batch: Batch, model_state: Any, rng: jax.Array, apply_fn: Callable[..., Any]
    ) -> Any:
        del rng
        found = run(apply_fn, params, batch, True)
        metrics = {"squared_error": found.squared_error, "quantile_loss": found.quantile_loss}
        return found.loss, metrics | {WEIGHT: found.total_weight}, model_state

    def sums(params: Any, batch: Batch, model_state: Any) -> Sums:
        del model_state
        found = run(evaluated.apply, params, batch, False)._asdict()
        weight = found.pop("total_weight")
        return {"loss": Means.of(found, weight)}

    def init(rng: jax.Array, batch: Batch) -> Mapping[str, Any]:
        made = module.init(streams(rng), *model_inputs(module.config, batch))
        return {"params": made["params"]}

    return Objective(module, loss, sums, init, None, True)


def _item_model(module: ItemModel, mixed_precision: bool, remat: bool) -> ItemModel:
    """The model for training: in bfloat16 (parameters and softmaxes stay float32), with remat."""
    policy = REMAT if remat else module.remat
    if not mixed_precision:
        return module.clone(remat=policy)
    return EfficientIDSModel(
        config=replace(module.config, backbone=_half(module.config.backbone)),
        clustering_info=module.clustering_info,
        freeze_lm=module.freeze_lm,
        item_embedding_init=module.item_embedding_init,
        remat=policy,
    )


def _in_training(
    module: Decoder | TimesFM, mixed_precision: bool, remat: bool
) -> tuple[Any, str | None]:
    """(configuration, remat policy) for training."""
    config = _half(module.config) if mixed_precision else module.config
    return config, REMAT if remat else module.remat


def _half(config: Any) -> Any:
    return replace(config, dtype="bfloat16")
