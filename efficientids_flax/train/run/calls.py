"""Training in one call: `result = train(config)`."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax

from efficientids_flax.data import Batches
from efficientids_flax.moved import left_names
from efficientids_flax.parameters import refuse_quantized
from efficientids_flax.sharding import make_mesh
from efficientids_flax.stored import (
    Origins,
    assumed_in,
    load_config,
    load_converted,
    read_prompted,
    tell_assumed,
    training_of,
)
from efficientids_flax.train.converted import trainer_from_converted
from efficientids_flax.train.directory import MODEL, no_best, opened
from efficientids_flax.train.history import Rows
from efficientids_flax.train.logs import tell
from efficientids_flax.train.optimizer import needs_weights
from efficientids_flax.train.run.config import RunConfig, run_config
from efficientids_flax.train.run.optimizer import make_optimizer
from efficientids_flax.train.state import Checkpoints, TrainState, refuse_words
from efficientids_flax.train.trainer import Trainer
from efficientids_flax.tree import flatten


@dataclass(frozen=True)
class TrainingResult:
    """The result of a run.

    Attributes:
        state: the state that was tested and that `export` writes: of the best evaluation if
            `keep_best` is set, else the last; `state.params` are the parameters.
        history: one dict for each step, also of earlier runs of the directory, with `step`, `loss`
            and the loss function's metrics, and `eval_...` at the steps of an evaluation.
        test: metrics of the final test, `test_...`; empty without test data.
        module: the model with the parameters of `state`, ready to be called, see `Trainer.module`.
        last_step: the last step of the run.
    """

    state: TrainState
    history: Rows
    test: Mapping[str, float]
    module: Any
    last_step: int


def train(config: Any) -> TrainingResult:
    """Train as a configuration says; resumes from the newest checkpoint of its directory.

    Args:
        config: a `ConfigDict`, or any mapping, with the sections
            `model`: `module`, of Linen or NNX, with `init_args` and `init_kwargs` of its `init` if
                running the loss does not initialise it, and initial `params`; or `module` and
                `converted`, a converted checkpoint (without an `optimizer` section, training
                continues with PAXml's learner);
            `optimizer`: see `OptimizerSection`; or `transform`, any optax transformation;
            `data`: `train_iter_fn`, and optionally `eval_iter_fn` and `test_iter_fn`: functions
                that return dict batches, or iterables of them; `items`, `ItemNames`, names of the
                items; `prompted`, `stored.Prompted`, the prompts that the model is used with;
            `training`: `num_steps` (1000), `seed`, `mesh`, and see `TrainingOptions`;
            `checkpoint`: see `CheckpointSection`;
            `loss_fn`: (params, batch, model_state, rng, apply_fn) -> (loss, metrics, model_state).

    Returns:
        See `TrainingResult`. The final test is of the best checkpoint if `keep_best` is set.

    Raises:
        ValueError: listing everything that is wrong with the configuration.
    """
    return run_training(run_config(config))


def run_training(config: RunConfig) -> TrainingResult:
    """`train` with a checked configuration."""
    trainer, state = begun(config)
    source, evaluation = config.data["train_iter_fn"], config.data.get("eval_iter_fn")
    state = trainer.train(state, source, evaluation, config.num_steps)
    trainer.let_go_of_data()
    best = trainer.best(state)
    test = final_test(trainer, best, config.data)
    return TrainingResult(best, trainer.history, test, trainer.module(best), int(state.step))


def evaluate(config: Any, split: str = "eval", step: int | None = None) -> dict[str, float]:
    """Metrics of a checkpoint of a run, dropout off.

    Args:
        config: configuration of the run, see `train`.
        split: 'eval' or 'test'.
        step: step of the checkpoint; None: the one that `export` writes, the best if one is kept,
            else the newest.

    Returns:
        `eval_...` or `test_...`, and the checkpoint's `step`.

    Raises:
        ValueError: the configuration is wrong, or has no data for this split.
        FileNotFoundError: there is no checkpoint.
    """
    checked = as_trained(run_config(config))
    batches = checked.data.get(f"{split}_iter_fn")
    if batches is None:
        raise ValueError(f"data.{split}_iter_fn: missing; there is nothing to evaluate on")
    trainer, state = begun(checked, trains=False)
    step = evaluated_step(checked, batches, step)
    found = trainer.evaluate(trainer.restore(state, step), batches, prefix=f"{split}_")
    return {"step": step, **found}


def as_trained(config: RunConfig) -> RunConfig:
    """The configuration with the `keep_best` that the run was trained with, if it has none itself.

    So the checkpoint that is evaluated is the one that is exported.
    """
    options, place = config.options, Path(config.directory or "") / MODEL
    if options.keep_best or config.directory is None or not (place / "config.json").is_file():
        return config
    told = training_of(place)
    best = {"keep_best": told.get("keep_best"), "best_mode": told.get("best_mode")}
    return replace(config, options=replace(options, **best))


def begun(config: RunConfig, *, trains: bool = True) -> tuple[Trainer, TrainState]:
    """The trainer and the state before the first step.

    Args:
        config: configuration of the run.
        trains: whether it will train, and not only evaluate.
    """
    model, mesh = dict(config.model), None
    if config.mesh is not None:
        mesh = make_mesh(**config.mesh.to_dict())
    sample = _sample(config.data["train_iter_fn"])
    converted, learner = model.pop("converted", None), model.pop("learner", None)
    prompt = config.data.get("prompted")
    if converted is not None and prompt is None:
        prompt = read_prompted(converted, load_config(converted).model)
    if converted is not None and config.optimizer is None:
        trainer, state = trainer_from_converted(
            converted,
            sample,
            clustering=getattr(model["module"], "clustering_info", None),
            optimizer_config=learner,
            rng=jax.random.key(config.seed),
            mesh=mesh,
            items=config.data.get("items"),
            checkpoint_dir=config.directory,
            loss_fn=config.loss_fn,
            options=config.options,
            on_nonfinite=config.options.on_nonfinite,
        )
        trainer.prompt = prompt or trainer.prompt
        return trainer, state
    origins: Origins = {}
    if converted is not None:
        model["params"], _, about = load_converted(converted, optimizer=False)
        refuse_quantized(converted, flatten(model["params"]))
        tell_assumed(converted, assumed_in(about, ("forward", "training")), strict=False)
        origins = about.origins
    optimizer, rate, frozen = make_optimizer(config, trains=trains)
    strategy = getattr(config.optimizer, "strategy", None)
    if strategy is not None and needs_weights(strategy) and model.get("params") is None:
        raise ValueError(f"model.params: missing; '{strategy}' begins with pretrained weights")
    trainer = Trainer(
        model["module"],
        optimizer,
        config.directory,
        loss_fn=config.loss_fn,
        mesh=mesh,
        frozen_params=frozen,
        learning_rate=rate,
        init_args=model.get("init_args"),
        init_kwargs=model.get("init_kwargs"),
        items=config.data.get("items"),
        options=config.options,
    )
    trainer.origins, trainer.prompt = origins, prompt
    state = trainer.create_train_state(
        jax.random.key(config.seed), sample, params=model.get("params")
    )
    return trainer, state


def _sample(source: Any) -> Any:
    """The first batch of data that can be read repeatedly.

    Raises:
        ValueError: the data can be read only once, or has no batch.
    """
    batches: Any = source() if callable(source) else source
    if batches is source and iter(batches) is batches:
        raise ValueError(
            "data.train_iter_fn: found an iterator; give a function that returns it, so that a run"
            " can begin at its start"
        )
    if isinstance(batches, Batches):
        return batches.first()  # starts no workers
    for batch in batches:
        return batch
    raise ValueError("data.train_iter_fn: has no batch to train on")


def evaluated_step(config: RunConfig, source: Any, step: int | None) -> int:
    """The step of the checkpoint to evaluate, see `chosen_step`.

    Args:
        config: configuration of the run.
        source: the evaluation data.
        step: the requested step, or None.

    Raises:
        FileNotFoundError: there is no checkpoint.
        RunMismatch: the texts in the data have other tokens than those of training.
    """
    options = config.options
    with opened(config.directory, options, read_only=True) as checkpoints:
        step = chosen_step(checkpoints, config, step)
        assert checkpoints is not None
        for line in refuse_words(checkpoints, source, options.allow_changes, step):
            tell(options.progress, line, warns=True)
    return step


def chosen_step(checkpoints: Checkpoints | None, config: RunConfig, step: int | None) -> int:
    """The step to evaluate or export: the requested one, else the best if kept, else the newest.

    Args:
        checkpoints: checkpoints of the run; None: it has no directory.
        config: configuration of the run.
        step: the requested step, or None.

    Raises:
        FileNotFoundError: there is no checkpoint.
    """
    if step is not None and checkpoints is not None:
        return step
    latest = None if checkpoints is None else checkpoints.latest_step()
    if checkpoints is None or latest is None:
        raise FileNotFoundError(f"checkpoint.dir: {config.directory}: no checkpoint is there")
    best = checkpoints.best_step()
    if best is None and config.options.keep_best:
        warnings.warn(no_best(config.options), stacklevel=3)
    return latest if best is None else best


def final_test(trainer: Trainer, state: TrainState, data: Mapping[str, Any]) -> dict[str, float]:
    """Metrics on the test data; empty if there is none."""
    batches = data.get("test_iter_fn")
    if batches is None:
        return {}
    return trainer.evaluate(state, batches, prefix="test_")


__getattr__ = left_names(__name__)
