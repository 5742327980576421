"""What a model is trained for and measured by: its loss, its metrics, its first variables.

The recommenders and the language model of this package bring their own; any other Linen or NNX
module comes with a loss function of the caller.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import nnx

from efficientids_flax.backbone import Decoder
from efficientids_flax.backbone.experts import LOSSES, RANDOM
from efficientids_flax.core.head import NEGATIVES
from efficientids_flax.core.head.measures import SCORINGS, Scoring
from efficientids_flax.core.item_model import ItemModel
from efficientids_flax.core.labelled import label_positions, label_times
from efficientids_flax.core.measuring import evaluation_sums, sums_of_positions
from efficientids_flax.core.metrics import token_sums
from efficientids_flax.core.models import EfficientIDSModel
from efficientids_flax.core.touching import most_touched, touched_rows
from efficientids_flax.forecast import TimesFM, forecast_loss, model_inputs
from efficientids_flax.losses import LanguageModelLoss, language_model_loss
from efficientids_flax.train.batches import rows_of
from efficientids_flax.train.state import ModelConfig
from efficientids_flax.train.step.evaluation_mode import intercept
from efficientids_flax.train.step.function import WEIGHT, LossFn, NamedBatch, returned
from efficientids_flax.train.step.mean import Means
from efficientids_flax.train.step.nnx_bridge import NNXBridge
from efficientids_flax.train.step.rows import ItemTable

Batch = Mapping[str, Any]
Sums = Mapping[str, Any]  # each has `a + b` and `compute()`
LARGE = 1 << 13  # items; a pass over fewer costs little beside the model


class Gathering(NamedTuple):
    """How several batches are measured at once, of a model for which that saves time.

    Attributes:
        times: batch -> int [B, P] or None, of `label_times`; read on the host.
        positions: (params, batch, times) -> what a batch leaves; arrays [B, P, ...], and [1].
        sums: (params, the same of several, joined) -> what is summed.
    """

    times: Callable[[Batch], np.ndarray | None]
    positions: Callable[[Any, Batch, jax.Array], Any]
    sums: Callable[[Any, Any], Sums]


class Objective(NamedTuple):
    """How to train a module.

    Attributes:
        module: with the precision and the rematerialisation that were asked for.
        loss: see `step.LossFn`.
        sums: (params, batch, model_state) -> what is summed over an evaluation.
        init: (rng, batch) -> variables.
        config: of the package's own models, for shardings; else None.
        own: whether the module sees to precision and rematerialisation itself.
        params: to begin with, of a module that holds its own.
        items: of a recommender whose loss has gradients by few rows of its item table.
        gathering: of a recommender with a large catalogue.
    """

    module: nn.Module | NNXBridge
    loss: LossFn
    sums: Callable[[Any, Batch, Any], Sums]
    init: Callable[[jax.Array, Batch], Mapping[str, Any]]
    config: ModelConfig | None
    own: bool
    params: Mapping[str, Any] | None = None
    items: ItemTable | None = None
    gathering: Gathering | None = None


def make_objective(
    module: nn.Module | nnx.Module,
    loss_fn: LossFn | None = None,
    *,
    init_args: Sequence[Any] | None = None,
    init_kwargs: Mapping[str, Any] | None = None,
    mixed_precision: bool = False,
    remat: bool = False,
    scoring: Scoring = "log_probs",
    exclude_seen: bool = False,
) -> Objective:
    """The objective of a module.

    Args:
        module: any Linen module, or an `nnx.Module`, which keeps its parameters.
        loss_fn: in place of the module's own loss; evaluations then report what it returns.
        init_args, init_kwargs: of `module.init`; None: the loss function says how the module is
            called.
        mixed_precision, remat: of the package's own models, in training: they are evaluated as they
            were given, which is how they are exported and served.
        scoring, exclude_seen: of the recommenders' evaluation, see `evaluation_sums`.

    Raises:
        ValueError: a module without a loss of its own, and no `loss_fn`; arguments to make
            parameters that an `nnx.Module` has already; options of a ranking that is not made.
        TypeError: no module, but the class of one, say.
    """
    if not isinstance(module, nn.Module | nnx.Module):
        kind = f"the class {module.__name__}" if isinstance(module, type) else repr(module)
        raise TypeError(f"model: expected a Linen module or an nnx.Module, found {kind}")
    if scoring not in SCORINGS:
        raise ValueError(f"scoring: expected {' or '.join(SCORINGS)}, found {scoring!r}")
    if exclude_seen and (loss_fn is not None or not isinstance(module, ItemModel)):
        raise ValueError(
            "exclude_seen: the evaluation ranks no items, since the loss is a loss_fn's or the"
            " model no recommender: leave it out"
        )
    if isinstance(module, ItemModel):
        given, module = module, _item_model(module, mixed_precision, remat)
        found = _of_item_model(module, given, scoring, exclude_seen)
    elif isinstance(module, Decoder):
        config = _half(module.config) if mixed_precision else module.config
        given, module = module, Decoder(config, "nothing_saveable" if remat else module.remat)
        found = _of_decoder(module, given)
    elif isinstance(module, TimesFM):
        config = _half(module.config) if mixed_precision else module.config
        given, module = module, TimesFM(config, "nothing_saveable" if remat else module.remat)
        found = _of_forecaster(module, given)
    elif loss_fn is None:
        raise ValueError(
            f"loss_fn: missing; {type(module).__name__} has no loss of its own: give"
            " loss_fn(params, batch, model_state, rng, apply_fn) -> (loss, metrics, model_state)"
        )
    elif isinstance(module, nnx.Module):
        if init_args is not None or init_kwargs is not None:
            raise ValueError("init_args: leave them out; an nnx.Module has its parameters already")
        return _of_nnx(module, loss_fn)
    else:
        found = Objective(module, loss_fn, _no_sums, _no_init, None, False)
    if loss_fn is not None:
        init = found.init if found.own else _init_by_loss(module, loss_fn)
        sums = _sums_of_loss(module, loss_fn)
        found = found._replace(loss=loss_fn, sums=sums, init=init, items=None, gathering=None)
    if init_args is not None or init_kwargs is not None:
        args, named = tuple(init_args or ()), dict(init_kwargs or {})
        found = found._replace(init=lambda rng, _: module.init(_streams(rng), *args, **named))
    return found


def _of_item_model(
    module: ItemModel, evaluated: ItemModel, scoring: Scoring, exclude_seen: bool
) -> Objective:
    def loss(
        params: Any, batch: Batch, model_state: Any, rng: jax.Array, apply_fn: Callable[..., Any]
    ) -> Any:
        found, _ = apply_fn(
            {"params": params}, batch, train=True, deterministic=False, method="loss",
            rngs=_streams(rng), mutable=[LOSSES],
        )  # fmt: skip
        metrics = {"avg_xent": found.avg_xent, "aux_loss": found.aux_loss}
        return found.loss, metrics | {WEIGHT: found.total_weight}, model_state

    def sums(params: Any, batch: Batch, model_state: Any) -> Sums:
        del model_state
        return evaluation_sums(evaluated, params, batch, scoring=scoring, exclude_seen=exclude_seen)

    def init(rng: jax.Array, batch: Batch) -> Mapping[str, Any]:
        made = module.init(_streams(rng), NamedBatch(batch), method="loss")
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


def _of_decoder(module: Decoder, evaluated: Decoder) -> Objective:
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
            rngs=None if rng is None else _streams(rng),
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
        made = module.init(_streams(rng), NamedBatch(batch), True, method=logits)
        return {"params": made["params"]}

    return Objective(module, loss, sums, init, module.config, True)


def _of_forecaster(module: TimesFM, evaluated: TimesFM) -> Objective:
    """The loss of `timesfm`'s fine-tuning; what is frozen has no state, as everywhere."""

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
        made = module.init(_streams(rng), *model_inputs(module.config, batch))
        return {"params": made["params"]}

    return Objective(module, loss, sums, init, None, True)


def _of_nnx(module: nnx.Module, loss_fn: LossFn) -> Objective:
    bridge = NNXBridge(module)
    sums = _sums_of_loss(bridge.evaluating(), loss_fn)
    return Objective(
        bridge, bridge.drawing(loss_fn), sums, lambda rng, batch: bridge.variables, None, False,
        bridge.variables["params"],
    )  # fmt: skip


def _sums_of_loss(
    module: nn.Module | NNXBridge, loss_fn: LossFn
) -> Callable[[Any, Batch, Any], Sums]:
    """The loss function's own numbers, with the module in its mode of evaluation."""

    def evaluate(variables: Any, *args: Any, **named: Any) -> Any:
        if isinstance(module, NNXBridge):
            return module.apply(variables, *args, **named)
        with nn.intercept_methods(intercept):
            return module.apply(variables, *args, **named)

    def sums(params: Any, batch: Batch, model_state: Any) -> Sums:
        key = jax.random.key(0)  # for loss functions that split it; there is no dropout
        given = loss_fn(params, NamedBatch(batch), model_state, key, evaluate)
        loss, metrics, _ = returned(given)
        found = {**metrics, "loss": loss}
        weight = found.pop(WEIGHT, jnp.float32(rows_of(batch) or 1))
        return {"loss": Means.of(found, weight)}

    return sums


def _init_by_loss(module: nn.Module, loss_fn: LossFn) -> Callable[..., Mapping[str, Any]]:
    """Initialises the module in the call that the loss function makes."""

    def init(rng: jax.Array, batch: Batch) -> Mapping[str, Any]:
        made: list[Mapping[str, Any]] = []

        def apply(
            variables: Any, *args: Any, rngs: Any = None, mutable: Any = False, **named: Any
        ) -> Any:
            del variables, rngs
            output, found = module.init_with_output(_streams(rng), *args, **named)
            made.append(found)
            rest = {name: value for name, value in found.items() if name != "params"}
            return (output, rest) if mutable is not False else output

        loss_fn({}, NamedBatch(batch), {}, rng, apply)
        if not made:
            raise ValueError("loss_fn: does not call apply_fn; give init_args to make parameters")
        return made[0]

    return init


def _item_model(module: ItemModel, mixed_precision: bool, remat: bool) -> ItemModel:
    """The same model in bfloat16, with float32 parameters and softmaxes; and rematerialised."""
    policy = "nothing_saveable" if remat else module.remat
    if not mixed_precision:
        return module.clone(remat=policy)
    return EfficientIDSModel(
        config=replace(module.config, backbone=_half(module.config.backbone)),
        clustering_info=module.clustering_info,
        freeze_lm=module.freeze_lm,
        item_embedding_init=module.item_embedding_init,
        remat=policy,
    )


def _half(config: Any) -> Any:
    return replace(config, dtype="bfloat16")


def _streams(rng: jax.Array) -> dict[str, jax.Array]:
    """A stream of random numbers for each use that a module may have."""
    names = ("params", "dropout", RANDOM)
    found = dict(zip(names, jax.random.split(rng, len(names)), strict=True))
    return found | {NEGATIVES: jax.random.fold_in(rng, len(names))}


def _no_sums(params: Any, batch: Batch, model_state: Any) -> Sums:
    raise NotImplementedError


def _no_init(rng: jax.Array, batch: Batch) -> Mapping[str, Any]:
    raise NotImplementedError
