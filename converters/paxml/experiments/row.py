"""One row of the table of experiments."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from efficientids_flax.config import OptimizerConfig
from efficientids_flax.settings import NEEDED

SIZES = (
    "num_layers", "model_dims", "hidden_dims", "num_heads", "num_kv_heads", "head_dim",
    "vocab_size",
)  # fmt: skip
"""The keys of `Experiment.sizes`, in its order."""
MORE_SIZES = (
    "max_positions", "moe.num_experts", "moe.hidden_dims", "relative_bias.num_buckets",
)  # fmt: skip
"""Sizes that only some models have; an experiment keeps them in `model`."""


@dataclass(frozen=True)
class Experiment:
    """The class of an experiment, or what a converter writes for one.

    Attributes:
        name: name of the class.
        source: repository and file of the class.
        praxis: version of Praxis whose defaults are in the settings.
        model: keys of `BackboneConfig` -> value, as in the job's dump; without `SIZES`.
        sizes: values of `SIZES`.
        learner: fields of `OptimizerConfig` -> value, including `name`; empty if the class does not
            train. Fields that are left out have the defaults of `OptimizerConfig`; a field that is
            None and has no default there is unknown.
        written_as: dtype of the parameters that a converter writes, at step 0 and without optimizer
            states. These marks identify a tree whatever its sizes. None: the class trains, and the
            sizes must be the tree's.
        step_shape: shape of the leaf `step`, if only one converter writes this shape; None: any.
        if_sized: further settings of the model that only apply to these sizes.
    """

    name: str
    source: str
    praxis: str
    model: Mapping[str, Any]
    sizes: tuple[int, ...]
    learner: Mapping[str, Any] = field(default_factory=dict)
    written_as: str | None = None
    step_shape: tuple[int, ...] | None = None
    if_sized: Mapping[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> dict[str, Any]:
        """Key -> value of all sizes."""
        more = {key: value for key, value in self.model.items() if key in MORE_SIZES}
        return dict(zip(SIZES, self.sizes, strict=True)) | more

    @property
    def structure(self) -> dict[str, Any]:
        """The settings that are not sizes."""
        return {key: value for key, value in self.model.items() if key not in MORE_SIZES}

    @property
    def whole_learner(self) -> dict[str, Any]:
        """All known fields of the learner."""
        if not self.learner:
            return {}
        values = OptimizerConfig.from_dict(self.learner).to_dict()
        unknown = NEEDED[self.learner["name"]]
        return {k: v for k, v in values.items() if not (v is None and k in unknown)}

    @property
    def recognised_by(self) -> str:
        """What identifies a tree of this experiment, in words."""
        if self.written_as is None:
            return "leaves, all sizes, optimizer"
        shape = "" if self.step_shape is None else f" of shape {list(self.step_shape)}"
        return f"leaves, {self.written_as}, step 0{shape}, no optimizer state"
