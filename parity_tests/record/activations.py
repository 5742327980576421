"""`python -m parity_tests.record activations OUT`: what a model computes, value by value.

A recording is a directory with `manifest.json`, `arrays.npz` and the checkpoint whose parameters
the values were computed with (docs/how-to/record-your-model.md). The models are those in
`models/decoders.py` and `models/layers.py`, or any experiment.
"""
from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import pathlib
import shutil
import tempfile
from typing import Any

from parity_tests.record.archive import pack
from parity_tests.record.checkpoints import PACKAGES, restore, save, write_dumps

SCHEMA_VERSION = 1
STEPS = 3


def main(arguments: list[str]) -> None:
    """Record all models of the table, those that are named, or one experiment."""
    parser = argparse.ArgumentParser(prog="record activations", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("out", type=pathlib.Path, help="directory of the recordings")
    add("names", nargs="*", help="models of the table; all without")
    add("--experiment", help="module.Class of a PAXml experiment, recorded in place of the table's")
    add("--checkpoint", type=pathlib.Path, help="its step, .../checkpoints/checkpoint_00001000; "
        "without one the model is initialised from the seed")  # fmt: skip
    add("--steps", type=int, help="optimizer steps after the checkpoint; 3, none in half precision")
    add("--evaluate", action="store_true", help="values of an evaluation, not of training")
    add("--dtype", choices=("float32", "bfloat16"), help="of the computation; the experiment's")
    add("--recommender", action="store_true", help="the model is EfficientIDS, no plain LM")
    add("--seed", type=int, default=0)
    found = parser.parse_args(arguments)
    if found.experiment and found.names:
        parser.error("name models of the table or an experiment, not both")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from absl import flags, logging

    flags.FLAGS.mark_as_parsed()  # PAXml reads flags of its own command
    logging.set_verbosity(logging.ERROR)
    if found.experiment:
        record_experiment(found)
        return
    from parity_tests.record.models.layers import LAYER_MODELS
    from parity_tests.record.models.decoders import MODELS

    table = (*MODELS, *LAYER_MODELS)
    unknown = set(found.names) - {model.name for model in table}
    if unknown:
        parser.error(f"no models named {', '.join(sorted(unknown))}")
    for model in table:
        if not found.names or model.name in found.names:
            record_model(model, found.out)


def record_model(model: Any, out: pathlib.Path) -> None:
    """Record a model of the table; its checkpoint becomes an archive in the recording."""
    import jax
    from praxis import base_hyperparams

    from parity_tests.record.capture import Run, nested, train
    from parity_tests.record.models.experiments import experiment_of
    from parity_tests.record.models.decoders import initial_state

    experiment = experiment_of(model)()
    task = base_hyperparams.instantiate(experiment.task())
    batches = [nested(model.batch(seed)) for seed in range(model.before + model.steps + 1)]
    state = initial_state(task, batches[0], with_optimizer=model.steps > 0)
    first, later = batches[0], batches[1:]
    if model.before:
        state, _ = train(Run(task, state, first), later[: model.before])
    run = Run(task, jax.device_get(state), first, evaluate=model.evaluate)
    arrays = _values(run, experiment, _dtype(task))
    if model.steps:
        arrays |= train(run, later[model.before :])[1]
    place = _empty(out / model.name)
    with tempfile.TemporaryDirectory() as folder:
        inner = pathlib.Path(folder) / "checkpoint"
        save(run.state, None, inner / "checkpoint", model.formats[0])
        (inner / "job_files").mkdir()
        write_dumps(experiment, inner / "job_files")
        shutil.move(pack(inner), place / "checkpoint.tar.xz")
    write(
        place,
        arrays,
        checkpoint="checkpoint.tar.xz",
        config=_settings(model.settings),
        notes=model.doc,
        model="language_model",
        dtype=_dtype(task),
        evaluate=model.evaluate,
        seed=0,
    )


def record_experiment(found: argparse.Namespace) -> None:
    """Record any experiment: with its own input, and with a given or a new checkpoint.

    Raises:
        ValueError: optimizer steps in half precision on a CPU, see
            docs/how-to/record-your-model.md.
    """
    import jax
    from praxis import base_hyperparams

    from parity_tests.record.capture import Run, nested, train

    module, _, name = found.experiment.rpartition(".")
    experiment = getattr(importlib.import_module(module), name)()
    task = instance(experiment, found.dtype)
    data = next((p for p in experiment.datasets() if p.is_training), experiment.datasets()[0])
    pipeline = base_hyperparams.instantiate(data)
    steps = found.steps
    if _dtype(task) != "float32" and jax.default_backend() == "cpu":
        if steps:
            raise ValueError(f"--steps: {steps} in {_dtype(task)} would be wrong on a CPU; give 0")
        steps = 0
    steps = STEPS if steps is None else steps
    batches = [nested(pipeline.get_next()) for _ in range(steps + 1)]
    place = _empty(found.out / name)
    if found.checkpoint:
        state = without_padding(*restore(experiment, found.checkpoint))
        shutil.copytree(found.checkpoint, place / "checkpoint" / found.checkpoint.name)
    else:
        from paxml import trainer_lib

        state, _ = trainer_lib.initialize_model_state(
            task, jax.random.PRNGKey(found.seed), batches[0], do_init_checkpoint_rules=False
        )
        save(state, None, place / "checkpoint", "gda")
    (place / "job_files").mkdir()
    write_dumps(experiment, place / "job_files")
    run = Run(task, jax.device_get(state), batches[0], found.evaluate, found.seed)
    arrays = _values(run, experiment, _dtype(task))
    if steps:
        arrays |= train(run, batches[1:])[1]
    write(
        place,
        arrays,
        checkpoint="checkpoint",
        config=_settings(
            {key: getattr(experiment, key) for key in dir(experiment) if key.isupper()}
        ),
        notes=f"{found.experiment}, {found.checkpoint or 'initialised'}",
        model="recommender" if found.recommender else "language_model",
        dtype=_dtype(task),
        evaluate=found.evaluate,
        seed=found.seed,
    )


def instance(experiment: Any, dtype: str | None) -> Any:
    """The experiment's task; it computes in `dtype` if that is given."""
    import jax.numpy as jnp
    from praxis import base_hyperparams

    config = experiment.task()
    if dtype is not None:
        config.model.fprop_dtype = getattr(jnp, dtype)
    return base_hyperparams.instantiate(config)


def without_padding(state: Any, shapes: Any) -> Any:
    """A restored state without padding; PAXml pads arrays that a mesh does not divide evenly."""
    import jax
    from praxis import py_utils

    def cut(value: Any, about: Any) -> Any:
        if py_utils.is_optax_masked_node(value):
            return value
        return jax.device_get(value)[tuple(slice(size) for size in about.shape)]

    return jax.tree_util.tree_map(cut, state, shapes, is_leaf=py_utils.is_optax_masked_node)


def write(
    place: pathlib.Path, arrays: dict[str, Any], *, evaluate: bool, config: Any, **about: Any
) -> None:
    """Write arrays and manifest of a recording."""
    import numpy as np

    from parity_tests.record.capture import distinct

    kept, same = distinct(arrays)
    np.savez_compressed(place / "arrays.npz", **kept)
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "origin": f"paxml {importlib.metadata.version('paxml')}",
        "names": "praxis",
        "mode": "eval" if evaluate else "train",
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        **about,
        "config": config,
        "same": same,
    }
    (place / "manifest.json").write_text(json.dumps(manifest, separators=(",", ":")))
    size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    print(f"recorded {place.name}: {len(kept)} arrays, {size} bytes", flush=True)


def _values(run: Any, experiment: Any, dtype: str) -> dict[str, Any]:
    """Inputs and values; for a computation in half precision, also the values in float32."""
    import dataclasses

    from parity_tests.record.capture import as_numpy

    arrays = {f"inputs/{name}": as_numpy(value) for name, value in run.inputs.items()}
    arrays |= run.values()
    if dtype != "float32":
        exact = dataclasses.replace(run, task=instance(experiment, "float32")).values()
        arrays |= {f"float32/{name}": value for name, value in exact.items()}
    return arrays


def _dtype(task: Any) -> str:
    import numpy as np

    return np.dtype(task.model.hparams.fprop_dtype).name


def _settings(values: dict[str, Any]) -> dict[str, Any]:
    """The settings as JSON; values that JSON cannot express become text."""
    return json.loads(json.dumps(values, default=str))


def _empty(place: pathlib.Path) -> pathlib.Path:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    return place
