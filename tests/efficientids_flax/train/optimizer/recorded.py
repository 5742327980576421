"""What the real PAXml did with given gradients: tests/data/optimizers, written by
`python -m parity_tests.record.optimizer_steps`.
"""

import json
from typing import Any

import numpy as np

from efficientids_flax.config import BackboneConfig, OptimizerConfig, ScheduleConfig
from efficientids_flax.parameters import parameter_shapes
from efficientids_flax.train.optimizer.variables import variables_of
from efficientids_flax.tree import flatten, unflatten
from tests.paths import DATA

FOLDER = DATA / "optimizers"
CLASSES = {"Adam": "adam", "ShardedAdafactor": "sharded_adafactor"}
RENAMED = {"epsilon1_grad_sq_reg": "epsilon1", "epsilon2_param_scale_reg": "epsilon2"}
# Praxis' defaults that the configuration does not have.
ADAM = {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-6, "clip_threshold": 1.0}
ADAFACTOR = {"beta1": 0.0, "clip_threshold": 1.0}


class Recorded:
    """One of the recordings.

    Attributes:
        about: its JSON.
        arrays: its arrays.
        model: of the small model, as PAXml trained it.
        paths: our path of each recorded variable, in the order in which they are packed.
    """

    def __init__(self, name: str) -> None:
        self.about: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
        self.arrays = dict(np.load(FOLDER / f"{name}.npz"))
        self.model = small_model(self.about["sizes"])
        variables = variables_of(self.model)
        ours = {variables(path).name: path for path in parameter_shapes(self.model)}
        self.paths = [ours[variable] for variable, _ in self.about["variables"]]
        assert len(ours) == len(self.paths)

    def tree(self, packed: np.ndarray) -> dict[str, Any]:
        """Our parameter tree of the values of all variables."""
        shapes = [shape for _, shape in self.about["variables"]]
        ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
        parts = np.split(packed, ends[:-1])
        found = {
            path: part.reshape(shape)
            for path, part, shape in zip(self.paths, parts, shapes, strict=True)
        }
        return unflatten(found)

    def optimizer(self, name: str) -> OptimizerConfig:
        """The configuration of one of the recorded optimizers."""
        about = self.about["optimizers"][name]
        kind = CLASSES.get(about["class"], "sgd")
        fields = {RENAMED.get(key, key): value for key, value in about["optimizer"].items()}
        fields = {"adam": ADAM, "sharded_adafactor": ADAFACTOR}.get(kind, {}) | fields
        if isinstance(decay := fields.get("weight_decay"), dict):
            fields |= {"weight_decay": 0.0, "weight_decay_by_pattern": list(decay.items())}
        if fields.pop("sharded_adam", True) is False:
            fields["clip_threshold"] = None
        learner = {
            key: [value] if isinstance(value, str) else value
            for key, value in about["learner"].items()
        }
        schedule = ScheduleConfig("linear_rampup_cosine_decay", self.about["schedule"])
        rate = {"learning_rate": self.about.get("learning_rate")}
        return OptimizerConfig.from_dict(
            {"name": kind, "schedule": schedule.to_dict(), **rate, **fields, **learner}
        )

    def fields(self, name: str) -> list[str]:
        """The fields of the state of one of the optimizers."""
        place = f"{name}/state/"
        return [key.removeprefix(place) for key in self.arrays if key.startswith(place)]

    def state(self, name: str, field: str, like: Any) -> dict[str, np.ndarray]:
        """Our path -> recorded values of a field of the state, in the shapes that ours has."""
        paths = [self.paths[place] for place in self.about["optimizers"][name]["state"]]
        sizes = {path: np.shape(leaf) for path, leaf in flatten(like).items()}
        assert set(sizes) == set(paths)
        packed = self.arrays[f"{name}/state/{field}"]
        ends = np.cumsum([int(np.prod(sizes[path])) for path in paths])
        assert packed.size == ends[-1]
        parts = np.split(packed, ends[:-1])
        return {p: part.reshape(sizes[p]) for p, part in zip(paths, parts, strict=True)}


def small_model(sizes: dict[str, Any]) -> BackboneConfig:
    """The configuration of PAXml's model of these sizes."""
    learned = sizes["TRAINABLE_POSITION_EMB"]
    return BackboneConfig(
        vocab_size=sizes["VOCAB_SIZE"],
        num_layers=sizes["NUM_LAYERS"],
        model_dims=sizes["MODEL_DIMS"],
        hidden_dims=sizes["HIDDEN_DIMS"],
        num_heads=sizes["NUM_HEADS"],
        num_kv_heads=sizes["NUM_HEADS"],
        head_dim=sizes["DIMS_PER_HEAD"],
        scan_layers=True,
        norm="layer_norm",
        norm_bias=True,
        norm_scale_plus_one=True,
        embedding_scale="sqrt_dim",
        position_embedding="learned" if learned else "sinusoidal",
        max_positions=sizes["TRAINABLE_PE_MAX_SEQ_LEN"] if learned else None,
        fused_qkv=True,
        query_scaling="per_dim_scale",
        attention_logit_cap=50.0,
        final_logit_cap=30.0,
        mlp_bias=True,
        activation="gelu_tanh",
        lm_head_bias=True,
    )
