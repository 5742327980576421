"""Trains each variant with the real trainer, saves and restores it with PAXml, and describes it.

A recording is `OUT/<name>_<format>/`: `checkpoint/` as the job left it, `job_files/` its text
dumps, `manifest.json` with what PAXml itself restores: `leaves` {jax key string: shape, dtype,
sha256 of the values without padding}.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from typing import Any

PACKAGES = ("paxml", "praxis", "jax", "jaxlib", "flax", "orbax-checkpoint", "optax", "numpy")
DEVICES = "--xla_force_host_platform_device_count="


def main() -> None:
    """Record all variants, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("names", nargs="*", help="variants; all without")
    found = parser.parse_args()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from absl import flags, logging

    flags.FLAGS.mark_as_parsed()  # PAXml's trainer reads flags of its command
    logging.set_verbosity(logging.ERROR)
    devices = int(os.environ.get("XLA_FLAGS", "").partition(DEVICES)[2].split(" ")[0] or 1)

    from parity_tests.record.variants import VARIANTS

    wanted = [v for v in VARIANTS if not found.names or v.name in found.names]
    for variant in [v for v in wanted if v.devices == devices]:
        record(variant, found.out)
    if devices == 1:  # the number of devices is fixed for a process
        for count in sorted({v.devices for v in wanted} - {1}):
            names = [v.name for v in wanted if v.devices == count]
            subprocess.run(
                [sys.executable, "-m", "parity_tests.record", str(found.out), *names],
                env={**os.environ, "XLA_FLAGS": DEVICES + str(count)},
                check=True,
            )


def record(variant: Any, out: pathlib.Path) -> None:
    """Train, restore, save in the other formats."""
    from paxml import train

    from parity_tests.record.experiments import STEPS, experiment_of

    experiment = experiment_of(variant)()
    with tempfile.TemporaryDirectory() as job:
        train.write_hparams_file(experiment, _path(job))
        train.write_experiment_class_vars_file(type(experiment), _path(job))
        train.train_and_evaluate(
            experiment,
            job,
            maybe_use_persistence_checkpointing=False,
            eval_on_test=False,
            enable_summary_writer=False,
        )
        checkpoints = pathlib.Path(job, "checkpoints")
        state, unpadded, specs, mesh = restore(experiment, checkpoints, STEPS)
        leaves, padded = describe(state, unpadded)
        for number, form in enumerate(variant.formats):
            place = out / f"{variant.name}_{form}"
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
            if form == "gda":
                step = f"checkpoint_{STEPS:08d}"
                shutil.copytree(checkpoints / step, place / "checkpoint" / step)
                how = "written by paxml.train.train_and_evaluate"
            else:
                save(state, unpadded, place / "checkpoint", form)
                how = f"restored by PAXml, saved by paxml.checkpoints.save_checkpoint ({form})"
            (place / "job_files").mkdir()
            for dump in sorted(pathlib.Path(job).glob("*.txt")):
                shutil.copy(dump, place / "job_files")
            manifest = {
                "case": variant.name,
                "format": form,
                "how": how,
                "doc": variant.doc,
                "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
                "mesh": list(mesh.devices.shape),
                "leaves": leaves,
                "padded_leaves": padded,
            }
            (place / "manifest.json").write_text(json.dumps(manifest, indent=1))
            print(f"recorded {place.name}: {len(leaves)} leaves, {len(padded)} padded", flush=True)


def restore(experiment: Any, checkpoints: pathlib.Path, step: int) -> tuple[Any, Any, Any, Any]:
    """The state as PAXml restores it (padded), its shapes without padding, its specs, the mesh."""
    import jax
    from paxml import checkpoints as pax
    from paxml import partitioning, trainer_lib
    from praxis import base_hyperparams

    task_p = experiment.task()
    task = base_hyperparams.instantiate(task_p)
    partitioner = partitioning.create_experiment_or_default_partitioner(
        experiment_config=experiment,
        jax_task=task,
        running_mode=trainer_lib.RunningMode.TRAIN,
        checkpoint_type=pax.CheckpointType.GDA,
        input_p=experiment.datasets()[0],
    )
    provider = base_hyperparams.instantiate(experiment.get_input_specs_provider_params())
    partitioner.setup(task, jax.random.PRNGKey(0), provider.get_input_specs())
    metadata = partitioner.get_train_state_metadata()
    mesh = partitioner.global_mesh
    state = pax.restore_checkpoint(
        metadata.padded_global_shapes,
        checkpoints,
        mesh,
        pax.CheckpointType.GDA,
        metadata.partition_specs,
        step,
        state_unpadded_shape_dtype_struct=metadata.unpadded_global_shapes,
    )
    return state, metadata.unpadded_global_shapes, metadata.partition_specs, mesh


def save(state: Any, unpadded: Any, directory: pathlib.Path, form: str) -> None:
    """Save a state in another format."""
    from paxml import checkpoints as pax

    pax.save_checkpoint(
        state,
        directory,
        checkpoint_type=pax.CheckpointType.FLAX if form == "flax" else pax.CheckpointType.GDA,
        train_state_unpadded_shape_dtype_struct=unpadded,
        tensorstore_use_ocdbt=form == "ocdbt",
    )


def describe(state: Any, unpadded: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Leaves without padding; and the padded ones as they are stored."""
    import jax
    import numpy as np

    shapes = dict(_flat(unpadded))
    leaves, padded = {}, {}
    for key, value in _flat(state):
        values = np.asarray(jax.device_get(value))
        shape = tuple(shapes[key].shape)
        if values.shape != shape:
            padded[key] = _about(values)
            values = values[tuple(map(slice, shape))]
        leaves[key] = _about(values)
    return leaves, padded


def _flat(tree: Any) -> list[tuple[str, Any]]:
    import jax
    from praxis import py_utils

    flat = jax.tree_util.tree_flatten_with_path(tree, is_leaf=py_utils.is_optax_masked_node)[0]
    return [
        (jax.tree_util.keystr(path), leaf)
        for path, leaf in flat
        if not py_utils.is_optax_masked_node(leaf)
    ]


def _about(values: Any) -> dict[str, Any]:
    import numpy as np

    return {
        "shape": list(values.shape),
        "dtype": values.dtype.name,
        "sha256": hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest(),
    }


def _path(job: str) -> Any:
    from etils import epath

    return epath.Path(job)
