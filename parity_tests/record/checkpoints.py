"""Trains each variant with the real trainer, saves and restores it with PAXml, and describes it.

A recording is `OUT/<name>_<format>/`: `checkpoint/` as the job left it, `job_files/` with its text
dumps, and `manifest.json` with what PAXml itself restores. `leaves` maps '/'-joined keys of the
TrainState to shape, dtype and sha256 of the values without padding; `padded_leaves` describes
padded leaves as they are on disk.
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
import traceback
from typing import Any

from parity_tests.record.archive import pack

PACKAGES = ("paxml", "praxis", "jax", "jaxlib", "flax", "orbax-checkpoint", "optax", "numpy")
DUMPS = ("model_params.txt", "experiment_cls_vars.txt")  # what converters read
DEVICES = "--xla_force_host_platform_device_count="


def main() -> None:
    """Record all variants, or those that are named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("names", nargs="*", help="variants; all without")
    found = parser.parse_args()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from absl import flags, logging

    flags.FLAGS.mark_as_parsed()  # PAXml's trainer reads flags of its command
    logging.set_verbosity(logging.ERROR)
    devices = int(os.environ.get("XLA_FLAGS", "").partition(DEVICES)[2].split(" ")[0] or 1)

    from parity_tests.record.models.variants import VARIANTS

    wanted = [v for v in VARIANTS if not found.names or v.name in found.names]
    for variant in [v for v in wanted if v.devices == devices]:
        try:
            record(variant, found.out)
        except Exception:  # the others can still be recorded
            print(f"{variant.name} was not recorded:", flush=True)
            traceback.print_exc()
    if devices == 1:  # the number of devices is fixed for a process
        for count in sorted({v.devices for v in wanted} - {1}):
            names = [v.name for v in wanted if v.devices == count]
            subprocess.run(
                [sys.executable, "-m", "parity_tests.record", str(found.out), *names],
                env={**os.environ, "XLA_FLAGS": DEVICES + str(count)},
                check=True,
            )


def record(variant: Any, out: pathlib.Path) -> None:
    """Train a variant, restore its state, and save it in the other formats."""
    from parity_tests.record import states
    from parity_tests.record.models.experiments import experiment_of

    if variant.base is None:
        state = states.state_of_all_dtypes()
        for form in variant.formats:
            save(state, None, out_of(variant, form, out) / "checkpoint", form)
            finish(variant, form, out, "saved by paxml.checkpoints.save_checkpoint", state, state)
        return
    experiment = experiment_of(variant)()
    with tempfile.TemporaryDirectory() as folder:
        job = pathlib.Path(folder)
        if variant.quantize is None:
            run_trainer(experiment, job)
            step = max((job / "checkpoints").iterdir(), key=lambda p: int(p.name[11:]))
            state, unpadded = restore(experiment, step)
            extra: dict[str, Any] = {}
        else:
            state, task, values = states.quantized_state(experiment, **variant.quantize)
            experiment.task = lambda: task
            write_dumps(experiment, job)
            unpadded, step = state, None
            extra = {"dequantized": {path: _about(value) for path, value in values.items()}}
        for number, form in enumerate(variant.formats):
            place = out_of(variant, form, out)
            if number == 0 and step is not None:
                shutil.copytree(step, place / "checkpoint" / step.name)
                how = "written by paxml.train.train_and_evaluate"
            else:
                save(state, unpadded, place / "checkpoint", form)
                how = f"saved by paxml.checkpoints.save_checkpoint ({form})"
            (place / "job_files").mkdir()
            for dump in DUMPS:
                shutil.copy(job / dump, place / "job_files")
            finish(variant, form, out, how, state, unpadded, extra)


def out_of(variant: Any, form: str, out: pathlib.Path) -> pathlib.Path:
    """Make the empty directory of one recording."""
    place = out / f"{variant.name}_{form}"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    return place


def write_dumps(experiment: Any, job: pathlib.Path) -> None:
    """Write PAXml's text dumps of the job."""
    from etils import epath
    from paxml import train

    train.write_hparams_file(experiment, epath.Path(job))
    train.write_experiment_class_vars_file(type(experiment), epath.Path(job))


def run_trainer(experiment: Any, job: pathlib.Path) -> None:
    """Run the trainer to its end."""
    from paxml import train

    write_dumps(experiment, job)
    train.train_and_evaluate(
        experiment,
        job,
        maybe_use_persistence_checkpointing=False,
        eval_on_test=False,
        enable_summary_writer=False,
    )


def finish(
    variant: Any,
    form: str,
    out: pathlib.Path,
    how: str,
    state: Any,
    unpadded: Any,
    extra: dict[str, Any] | None = None,
) -> None:
    """Write the manifest."""
    leaves, padded = describe(state, unpadded)
    place = out / f"{variant.name}_{form}"
    manifest = {
        "case": variant.name,
        "format": form,
        "how": how,
        "doc": variant.doc,
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "devices": variant.devices,
        "leaves": leaves,
        "padded_leaves": padded,
        **(extra or {}),
    }
    (place / "manifest.json").write_text(json.dumps(manifest, separators=(",", ":")))
    size = pack(place).stat().st_size
    print(f"recorded {place.name}: {len(leaves)} leaves, {len(padded)} padded, {size} bytes")


def restore(experiment: Any, step: pathlib.Path) -> tuple[Any, Any]:
    """A step's state as PAXml restores it (with padding), and its shapes without padding."""
    import jax
    from paxml import checkpoints as pax
    from paxml import partitioning, trainer_lib
    from praxis import base_hyperparams

    task = base_hyperparams.instantiate(experiment.task())
    kind = pax.retrieve_checkpoint_type(False, task)
    partitioner = partitioning.create_experiment_or_default_partitioner(
        experiment_config=experiment,
        jax_task=task,
        running_mode=trainer_lib.RunningMode.TRAIN,
        checkpoint_type=kind,
        init_is_eval=False,
        enable_auto_sharding=False,
        input_p=experiment.datasets()[0],
    )
    provider = base_hyperparams.instantiate(experiment.get_input_specs_provider_params())
    partitioner.setup(task, jax.random.PRNGKey(0), provider.get_input_specs())
    metadata = partitioner.get_train_state_metadata()
    pjit = kind == pax.CheckpointType.GDA
    shapes = metadata.padded_global_shapes if pjit else metadata.unpadded_global_shapes
    state = pax.restore_checkpoint(
        shapes,
        step.parent,
        partitioner.global_mesh,
        kind,
        metadata.partition_specs if pjit else None,
        int(step.name.rpartition("_")[2]),
        state_unpadded_shape_dtype_struct=metadata.unpadded_global_shapes,
    )
    return state, metadata.unpadded_global_shapes


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
    """Descriptions of all leaves without padding, and of padded leaves as they are stored."""
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
        ("/".join(str(_key(part)) for part in path), leaf)
        for path, leaf in flat
        if not py_utils.is_optax_masked_node(leaf)
    ]


def _key(part: Any) -> Any:
    """The key, index or field name in one step of a JAX path."""
    return next(getattr(part, name) for name in ("key", "idx", "name") if hasattr(part, name))


def _about(values: Any) -> dict[str, Any]:
    import numpy as np

    return {
        "shape": list(values.shape),
        "dtype": values.dtype.name,
        "sha256": hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest(),
    }
