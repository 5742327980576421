"""Exports the model of a run for `load_model`, from its directory alone, without its data."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from efficientids_flax.stored import (
    ItemNames,
    Origins,
    Prompted,
    load_config,
    load_description,
    read_item_names,
    read_prompted,
    save_model,
    training_of,
)
from efficientids_flax.stored.settings import LENGTH
from efficientids_flax.train.directory import MODEL, averages, known, opened
from efficientids_flax.train.logs import tell
from efficientids_flax.train.run.calls import as_trained, chosen_step
from efficientids_flax.train.run.config import RunConfig, plain, run_config
from efficientids_flax.train.run.file_config import built
from efficientids_flax.train.state import model_facts, of_other_model, refuse_model


class Description(NamedTuple):
    """The description of its model that a run has written into its directory.

    Attributes:
        model: the module, without parameters; None: there is no description.
        training: facts about its training, as JSON values: length of the sequences, facts that
            identify the model (`model`), how the best checkpoint is chosen (`keep_best`,
            `best_mode`), and whether averages of the parameters are used (`average`).
        items: names of the items.
        origins: where the model's settings came from, see `stored.Config`.
        prompt: how histories became the rows of training.
    """

    model: Any = None
    training: Mapping[str, Any] = {}
    items: ItemNames | None = None
    origins: Origins = {}  # noqa: RUF012 (nobody changes it)
    prompt: Prompted | None = None


def export(config: Any, path: str | os.PathLike[str], step: int | None = None) -> int:
    """Write the model of a run for `load_model`; see `save_model`.

    If the run evaluates averages of the parameters, these are written.

    Args:
        config: configuration of the run, see `train`; its batches are not read.
        path: directory to create.
        step: step of the checkpoint; None: the best if one is kept, else the newest.

    Returns:
        The step that was written.

    Raises:
        ValueError, TypeError: the configuration is wrong, or its model cannot be written.
        FileNotFoundError: there is no checkpoint.
    """
    checked = run_config(config)
    module = checked.model["module"]
    return _written(checked, _described(checked.directory), module, model_facts(module), path, step)


def export_described(
    config: Mapping[str, Any], path: str | os.PathLike[str], step: int | None = None
) -> int:
    """`export` for the sections of a file, whose model and data may be gone.

    Args:
        config: sections, see `file_config`. If the directory of the run describes its model, the
            sections of model and data are not read.
        path, step: see `export`.
    """
    made = plain(config)
    directory = (made.get("checkpoint") or {}).get("dir")
    found = _described(directory)
    if found.model is None:
        if directory is not None and not Path(directory).is_dir():  # clearer than missing data
            raise FileNotFoundError(f"checkpoint.dir: {directory}: no checkpoint is there")
        return export(built(made), path, step)
    without = {"model": {"module": found.model}, "data": {"train_iter_fn": ()}, "loss_fn": None}
    checked = run_config({**made, **without})
    return _written(checked, found, found.model, found.training.get("model", {}), path, step)


def _described(directory: str | None) -> Description:
    if directory is None or not (Path(directory) / MODEL / "config.json").is_file():
        return Description()
    place = Path(directory) / MODEL
    model, config = load_description(place)
    names, prompt = read_item_names(place), read_prompted(place, config.model)
    return Description(model, training_of(place), names, config.origins, prompt)


def _written(
    config: RunConfig,
    found: Description,
    module: Any,
    facts: Any,
    path: str | os.PathLike[str],
    step: int | None,
) -> int:
    config, told = as_trained(config), found.training
    options = config.options
    average = averages(options, config.optimizer)
    if options.evaluate_average is None:
        average = told.get("average", average)
    with opened(config.directory, options, read_only=True) as checkpoints:
        step = chosen_step(checkpoints, config, step)
        assert checkpoints is not None
        for line in refuse_model(checkpoints, facts, options.allow_changes, step):
            tell(options.progress, line, warns=True)
        params = checkpoints.restore_params(step, average)  # raises if there is none
        other = of_other_model(checkpoints, facts, step)
        metrics = {} if other else checkpoints.metrics(step)
    training = known({"step": step, LENGTH: told.get(LENGTH), "metrics": metrics})
    origins = found.origins
    if not origins and (converted := config.model.get("converted")) is not None:
        origins = load_config(converted).origins
    save_model(
        path, module, params, training=training, items=found.items, origins=origins,
        prompt=found.prompt,
    )  # fmt: skip
    return step
