"""Makes a tiny PAXml experiment for each variant: the model, and the made-up batches it trains on.

All sizes are different, so that no wrong transpose fits by chance: D 16 width, N 2 heads, H 8 head
width, F 24 hidden width, V 40 words, T 12 positions.
"""
from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from paxml import base_experiment, tasks_lib
from paxml.tasks.lm import model_params
from praxis import base_input, pax_fiddle, py_utils
from praxis.layers import activations

Edit = Callable[[Any], None]  # changes a task's configuration in place

SIZES = {
    "NUM_LAYERS": 2, "VOCAB_SIZE": 40, "DIMS_PER_HEAD": 8, "NUM_HEADS": 2, "MODEL_DIMS": 16,
    "HIDDEN_DIMS": 24, "TRAINABLE_PE_MAX_SEQ_LEN": 20, "FPROP_DTYPE": jnp.float32,
    "COMBINE_QKV": False, "LEARNING_RATE": 1e-2, "CHECKPOINT_EVERY_N_STEPS": 3,
    "EVAL_INTERVAL_STEPS": 1000, "ICI_MESH_SHAPE": [1, 1, 1],
}  # fmt: skip
STEPS = 3
BATCH, TIME = 4, 12


@dataclasses.dataclass(frozen=True)
class Variant:
    """One row of the table of what is recorded.

    Attributes:
        name: name of the recording, without its format.
        doc: what it covers that others do not.
        formats: 'gda' (zarr), 'ocdbt', 'flax'. The job writes the first it can (gda); the others
            are the same state, saved again by `paxml.checkpoints.save_checkpoint`.
        base: an experiment of PAXml, or a function that makes a task's configuration.
        settings: class variables of the experiment that differ from `SIZES`.
        edits: changes of the task's configuration, made afterwards.
        devices: number of (forced host) devices that the job needs.
        inputs: makes the batch.
        quantize: settings with which the weights are quantized instead of trained.
    """

    name: str
    doc: str
    formats: tuple[str, ...] = ("gda",)
    base: Any = model_params.TransformerLmSpmdAdafactor
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    edits: tuple[Edit, ...] = ()
    devices: int = 1
    inputs: Callable[[], dict[str, Any]] | None = None
    quantize: dict[str, Any] | None = None


def text_batch(vocab: int, seed: int = 0) -> dict[str, np.ndarray]:
    """A packed batch of random words."""
    words = np.random.RandomState(seed).randint(1, vocab, (BATCH, TIME + 1)).astype(np.int32)
    shape = (BATCH, TIME)
    return {
        "ids": words[:, :-1],
        "labels": words[:, 1:],
        "paddings": np.zeros(shape, np.float32),
        "weights": np.ones(shape, np.float32),
        "segment_ids": np.ones(shape, np.int32),
        "segment_pos": np.tile(np.arange(TIME, dtype=np.int32), (BATCH, 1)),
        "inputs_indicator": np.zeros(shape, np.int32),
    }


class TinyInput(base_input.BaseInput):
    """One batch, over and over."""

    make_batch: Any = None

    def get_next(self) -> py_utils.NestedMap:
        """The batch."""
        return py_utils.NestedMap(self.make_batch())


def experiment_of(variant: Variant) -> type[base_experiment.BaseExperiment]:
    """Make the experiment class of a variant, with the variant's name."""
    settings = {**SIZES, **variant.settings}

    def datasets(self: Any) -> list[Any]:
        make = variant.inputs or (lambda: text_batch(settings["VOCAB_SIZE"]))
        return [
            pax_fiddle.Config(
                TinyInput, name="train", is_training=True, batch_size=BATCH, make_batch=make
            )
        ]

    def task(self: Any) -> Any:
        if isinstance(variant.base, type):
            made = super(cls, self).task()
        else:
            made = pax_fiddle.Config(tasks_lib.SingleTask, name="task", model=variant.base())
            model_params.set_default_adam(made, settings["LEARNING_RATE"], 1e-3)
            model = made.model
            model.fprop_dtype = jnp.float32
            model.ici_mesh_shape, model.dcn_mesh_shape = [1, 1, 1], [1, 1, 1]
            model.mesh_axis_names = ["replica", "data", "mdl"]
            made.train.save_interval_steps = STEPS
            made.train.inputs_split_mapping = None
        made.train.num_train_steps = STEPS
        if hasattr(made.train.learner, "optimizer") and made.train.learner.optimizer:
            schedule = getattr(made.train.learner.optimizer, "lr_schedule", None)
            if schedule is not None and hasattr(schedule, "warmup_steps"):
                schedule.warmup_steps, schedule.decay_start, schedule.decay_end = 2, 3, 100
        for edit in variant.edits:
            edit(made)
        return made

    parent = variant.base if isinstance(variant.base, type) else base_experiment.BaseExperiment
    cls = type(variant.name, (parent,), {**settings, "datasets": datasets, "task": task})
    return cls


def put(path: str, value: Any) -> Edit:
    """Make an edit that sets one value, such as `train.learner.repeat_prefix_sep`.

    A callable value is called for each task, so that configurations are not shared.
    """

    def edit(task: Any) -> None:
        *parents, last = path.split(".")
        node = task
        for name in parents:
            node = node[int(name)] if name.isdigit() else getattr(node, name)
        setattr(node, last, value() if callable(value) and not isinstance(value, type) else value)

    return edit


def adam(task: Any) -> None:
    """An edit that uses Adam as PAXml's experiments configure it."""
    model_params.set_default_adam(task, 1e-2, 1e-3, warmup_steps=2, decay_start=3, decay_end=100)


LLAMA = {
    "USE_ROTARY_POSITION_EMB": True, "SEPARATE_EMBEDDING": True, "USE_GATED_ACTIVATION": True,
    "ACTIVATION_CLS": activations.SiLU, "SOFTMAX_CAP_LOGITS": 0.0, "ATTEN_LOGIT_CAP": 0.0,
}  # fmt: skip
GPT = {"ACTIVATION_CLS": activations.GELU}
