"""Make the objective of a module, with its own loss or a given one."""

from collections.abc import Mapping, Sequence
from typing import Any

from flax import linen as nn
from flax import nnx

from efficientids_flax.backbone import Decoder
from efficientids_flax.core.head.measures import SCORINGS, Scoring
from efficientids_flax.core.item_model import ItemModel
from efficientids_flax.forecast import TimesFM
from efficientids_flax.train.step.function import LossFn
from efficientids_flax.train.step.objectives.given_loss import by_given_loss, of_linen, of_nnx
from efficientids_flax.train.step.objectives.own_loss import (
    of_decoder,
    of_forecaster,
    of_item_model,
)
from efficientids_flax.train.step.objectives.parts import Objective, streams


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
        module: any Linen module, or an `nnx.Module`, whose parameters are used.
        loss_fn: used instead of the module's own loss; evaluations then report what it returns.
        init_args, init_kwargs: arguments of `module.init`; None: as the loss function calls the
            module.
        mixed_precision, remat: for training the package's own models. Evaluation uses the models as
            given, since that is how they are exported and served.
        scoring, exclude_seen: for the evaluation of recommenders, see `evaluation_sums`.

    Raises:
        ValueError: the module has no loss of its own, and `loss_fn` is missing; `init_args` for an
            `nnx.Module`, which has parameters already; ranking options without a ranking.
        TypeError: `module` is no module, for example a class.
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
        found = of_item_model(module, mixed_precision, remat, scoring, exclude_seen)
    elif isinstance(module, Decoder):
        found = of_decoder(module, mixed_precision, remat)
    elif isinstance(module, TimesFM):
        found = of_forecaster(module, mixed_precision, remat)
    elif loss_fn is None:
        raise ValueError(
            f"loss_fn: missing; {type(module).__name__} has no loss of its own: give"
            " loss_fn(params, batch, model_state, rng, apply_fn) -> (loss, metrics, model_state)"
        )
    elif isinstance(module, nnx.Module):
        if init_args is not None or init_kwargs is not None:
            raise ValueError("init_args: leave them out; an nnx.Module has its parameters already")
        return of_nnx(module, loss_fn)
    else:
        found = of_linen(module, loss_fn)
    if found.own and loss_fn is not None:
        found = by_given_loss(found, loss_fn)
    if init_args is not None or init_kwargs is not None:
        args, named, trained = tuple(init_args or ()), dict(init_kwargs or {}), found.module
        assert isinstance(trained, nn.Module)
        found = found._replace(init=lambda rng, _: trained.init(streams(rng), *args, **named))
    return found
