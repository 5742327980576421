"""Continue a PAXml run: make a trainer and its state from a converted checkpoint."""

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
from flax import linen as nn

from efficientids_flax.backbone import Decoder
from efficientids_flax.config import EfficientIDSConfig, OptimizerConfig, TimesFMConfig
from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.core.models import EfficientIDSModel
from efficientids_flax.forecast import TimesFM
from efficientids_flax.parameters import ModelConfig, refuse_quantized
from efficientids_flax.stored import (
    MATTERS,
    Config,
    as_optax,
    assumed_in,
    clustering_of,
    load_converted,
    tell_assumed,
)
from efficientids_flax.train.optimizer import (
    excluded_by,
    learning_rate,
    paxml_learner,
    variables_of,
)
from efficientids_flax.train.state import TrainState, default_mesh
from efficientids_flax.train.trainer import Trainer
from efficientids_flax.tree import flatten


def trainer_from_converted(
    path: str | os.PathLike[str],
    sample_batch: Any,
    *,
    clustering: ClusteringInfo | None = None,
    optimizer_config: OptimizerConfig | Mapping[str, Any] | None = None,
    beta1: float | None = None,
    beta2: float | None = None,
    rng: jax.Array | None = None,
    strict: bool = False,
    **options: Any,
) -> tuple[Trainer, TrainState]:
    """Continue a PAXml job: a trainer that takes the steps PAXml would have taken, and its state.

    As in PAXml, the update of a step whose loss or gradient is not finite is skipped: the
    optimizer's counts stay, while the number of steps increases. One `UserWarning` lists the
    settings of model and learner that the conversion assumed.

    Args:
        path: output of `efficientids convert`.
        sample_batch: see `Trainer.create_train_state`.
        clustering: for a recommender with a hierarchical softmax; None: the one in the directory.
        optimizer_config: used instead of the converted one, if that is incomplete. A mapping
            replaces only the values that it has, as in `OptimizerConfig.from_dict`.
        beta1, beta2: decay rates of Adam, if the conversion did not know them.
        rng: random key for dropout; default: key 0. PAXml's random numbers are not reproduced.
        strict: raise if settings were assumed.
        **options: options of `Trainer`, and `mesh`.

    Returns:
        (trainer, state with the converted parameters, optimizer state and step). Without a
        converted optimizer state, the optimizer starts anew.

    Raises:
        ValueError: the checkpoint has no known model or optimizer; Adam's moments are still in
            PAXml's form and cannot be converted since a decay rate is unknown; settings were
            assumed, and `strict` is set.
    """
    mesh = options.pop("mesh", None) or default_mesh()
    converted = load_converted(path)
    model = converted.config.model
    given = {name: rate for name, rate in (("beta1", beta1), ("beta2", beta2)) if rate is not None}
    optimizer, unsaid = _learner(converted.config, optimizer_config, given)
    if model is None or optimizer is None:
        what = "model" if model is None else "optimizer"
        raise ValueError(f"{path}: its {what} is not known; config.json has null for it")
    refuse_quantized(path, flatten(converted.params))
    tell_assumed(path, unsaid, strict=strict)
    if clustering is None and isinstance(model, EfficientIDSConfig) and not model.full_softmax:
        clustering = clustering_of(path)
    try:
        chain = as_optax(converted.optimizer_state.optimizer, optimizer)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    trainer = Trainer(
        module_of(model, clustering),
        paxml_learner(optimizer, model),
        mesh=mesh,
        frozen_params=_frozen(optimizer, model),
        learning_rate=learning_rate(optimizer),
        **{"on_nonfinite": "skip", **options},
    )
    trainer.origins = converted.config.origins
    state = trainer.create_train_state(
        jax.random.key(0) if rng is None else rng,
        sample_batch,
        params=converted.params,
        opt_state=chain or None,
        step=converted.optimizer_state.step or 0,
    )
    return trainer, state


def module_of(config: ModelConfig, clustering: ClusteringInfo | None = None) -> nn.Module:
    """The module that a configuration describes."""
    if isinstance(config, EfficientIDSConfig):
        return EfficientIDSModel(config=config, clustering_info=clustering)
    if isinstance(config, TimesFMConfig):
        return TimesFM(config)
    return Decoder(config)


def _learner(
    config: Config, own: OptimizerConfig | Mapping[str, Any] | None, given: Mapping[str, Any]
) -> tuple[OptimizerConfig | None, dict[str, dict[str, Any]]]:
    """The learner's configuration; and settings that were assumed and that the caller left so."""
    found = assumed_in(config, MATTERS)
    unsaid = found.pop("optimizer", {})
    optimizer = config.optimizer
    if isinstance(own, OptimizerConfig):
        optimizer, unsaid = own, {}
    elif own:
        before = {} if optimizer is None else optimizer.to_dict()
        optimizer = OptimizerConfig.from_dict({**before, **own})
    if optimizer is not None:
        optimizer = replace(optimizer, **given)
    said = {*given, *(() if isinstance(own, OptimizerConfig) else own or ())}
    return optimizer, found | {"optimizer": {k: v for k, v in unsaid.items() if k not in said}}


def _frozen(optimizer: OptimizerConfig, model: ModelConfig) -> Any:
    """Predicate of the parameters that PAXml freezes; () if these keep an optimizer state."""
    if optimizer.keep_optimizer_state_for_excluded_vars:
        return ()
    return excluded_by(optimizer, variables_of(model, optimizer.vectorize_on_repeat_prefix))
