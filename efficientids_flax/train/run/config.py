"""The sections of a run's configuration and their checks; reading them from files."""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from numbers import Integral
from pathlib import Path
from typing import Any

from efficientids_flax.config.record import Record, listed, positive, unknown_key
from efficientids_flax.train.direction import Mode
from efficientids_flax.train.optimizer import STRATEGIES
from efficientids_flax.train.options import TrainingOptions

WARM_UP = 100  # steps, or a tenth of a run that is shorter than ten times that


@dataclass(frozen=True)
class OptimizerSection(Record):
    """How the parameters are updated.

    Attributes:
        learning_rate: peak learning rate.
        optimizer_type: see `create_optimizer`.
        schedule_type: see `create_learning_rate_schedule`.
        warmup_steps: None: 100, or a tenth of a short run.
        total_steps: length of the schedule; None: that of the run.
        min_learning_rate_ratio: final learning rate relative to `learning_rate`.
        decay_steps, decay_rate, boundaries: arguments of schedules that take them.
        weight_decay, beta1, beta2, momentum: arguments of the optimizer; None: its default.
        clip_norm: clip by the global norm of the gradients; None or 0: no clip.
        clip_variable_norm: clip each gradient by its own norm, instead of `clip_norm`.
        ema_decay: decay of an average of the parameters, which is then evaluated and exported.
        options: further arguments of the optimizer.
        frozen_params: patterns of parameters that are not trained.
        strategy: name of such a set of patterns, see `STRATEGIES`.
    """

    learning_rate: float = 1e-3
    optimizer_type: str = "adamw"
    schedule_type: str = "cosine"
    warmup_steps: int | None = None
    total_steps: int | None = None
    min_learning_rate_ratio: float = 0.0
    decay_steps: int | None = None
    decay_rate: float | None = None
    boundaries: tuple[int, ...] | None = None
    weight_decay: float | None = None
    clip_norm: float | None = 1.0
    clip_variable_norm: float | None = None
    ema_decay: float | None = None
    beta1: float | None = None
    beta2: float | None = None
    momentum: float | None = None
    frozen_params: tuple[str, ...] = ()
    strategy: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def problems(self) -> Collection[str]:
        """Numbers are in range, the strategy exists."""
        found = positive(self, "learning_rate", "total_steps", "clip_variable_norm", "decay_steps")
        if self.clip_norm is not None and self.clip_norm < 0:
            found.append(f"clip_norm: expected at least 0 (no clip), found {self.clip_norm}")
        if self.strategy is not None and self.strategy not in STRATEGIES:
            found.append(f"strategy: found '{self.strategy}', there are {', '.join(STRATEGIES)}")
        return found


@dataclass(frozen=True)
class MeshSection(Record):
    """Sizes of the mesh, see `sharding.make_mesh`."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1
    expert: int = 1


@dataclass(frozen=True)
class CheckpointSection(Record):
    """Settings of the checkpoints.

    Attributes:
        dir: directory of the checkpoints; None: none are written.
        max_to_keep, restore, save_every, keep_best, best_mode: see `TrainingOptions`.
    """

    dir: str | None = None
    max_to_keep: int | None = 3
    restore: bool = True
    save_every: int = 500
    keep_best: str | None = None
    best_mode: Mode | None = None


_TAKEN = {"restore", "save_every", "keep_best", "best_mode", "max_checkpoints"}
OPTION_KEYS = tuple(f.name for f in fields(TrainingOptions) if f.name not in _TAKEN)
SECTIONS: Mapping[str, tuple[str, ...]] = {
    "model": ("module", "init_args", "init_kwargs", "params", "converted", "learner"),
    "optimizer": (*(f.name for f in fields(OptimizerSection)), "transform"),
    "data": ("train_iter_fn", "eval_iter_fn", "test_iter_fn", "items", "prompted"),
    "training": ("num_steps", "seed", "mesh", *OPTION_KEYS),
    "checkpoint": tuple(f.name for f in fields(CheckpointSection)),
}


@dataclass(frozen=True)
class RunConfig:
    """The checked configuration of a run.

    Attributes:
        model: `module`, `init_args`, `init_kwargs`, `params`; or `module` and `converted`, the
            directory of a conversion, optionally with a `learner` instead of the conversion's.
        optimizer: an `OptimizerSection`, an optax transformation, or None: that of the conversion.
        data: `train_iter_fn`, and optionally `eval_iter_fn`, `test_iter_fn`, `items` (names of the
            items) and `prompted` (how histories become prompts).
        num_steps, seed: steps and random seed of the run.
        mesh: sizes of the mesh; None: all devices, for the rows of the batch.
        options: all other options.
        directory: directory of the checkpoints, or None.
        loss_fn: see `Trainer`.
    """

    model: Mapping[str, Any]
    optimizer: Any
    data: Mapping[str, Any]
    num_steps: int
    seed: int
    mesh: MeshSection | None
    options: TrainingOptions
    directory: str | None
    loss_fn: Callable[..., Any] | None


def run_config(config: Any) -> RunConfig:
    """Check a configuration.

    Args:
        config: a mapping or `ConfigDict` with the sections of `SECTIONS`, and `loss_fn`.

    Raises:
        ValueError: lists unknown keys, each with the nearest known one, missing keys, and wrong
            values.
    """
    given = plain(config)
    problems = [unknown_key(k, (*SECTIONS, "loss_fn")) for k in given if k not in SECTIONS
                and k != "loss_fn"]  # fmt: skip
    parts: dict[str, Mapping[str, Any]] = {}
    for name, keys in SECTIONS.items():
        section = given.get(name) or {}
        if not isinstance(section, Mapping):
            problems.append(f"{name}: expected a section, found {section!r}")
            section = {}
        problems += [f"{name}.{unknown_key(key, keys)}" for key in section if key not in keys]
        parts[name] = {key: value for key, value in section.items() if key in keys}
    if not parts["model"]:
        problems.append("model.module: missing")
    if "train_iter_fn" not in parts["data"]:
        problems.append("data.train_iter_fn: missing")
    if all(parts["optimizer"].get(key) for key in ("clip_norm", "clip_variable_norm")):
        problems.append("optimizer.clip_variable_norm: excludes clip_norm")
    training = dict(parts["training"])
    transform = parts["optimizer"].get("transform")
    steps, seed = training.pop("num_steps", 1000), training.pop("seed", 0)
    problems += [
        f"training.{name}: expected a whole number of at least {least}, found {value!r}"
        for name, value, least in (("num_steps", steps, 1), ("seed", seed, 0))
        if not isinstance(value, Integral) or isinstance(value, bool) or value < least
    ]
    made: dict[str, Any] = {}
    for name, kind, values in (
        ("optimizer", OptimizerSection, {} if transform is not None else parts["optimizer"]),
        ("checkpoint", CheckpointSection, parts["checkpoint"]),
        ("training.mesh", MeshSection, training.pop("mesh", None) or {}),
        ("training", TrainingOptions, training),
    ):
        try:
            made[name] = kind.from_dict(values)
        except ValueError as error:
            problems.append(f"{name}: {error}")
    if problems:
        raise ValueError(listed("config", problems))
    stored = made["checkpoint"]
    options: dict[str, Any] = {"max_checkpoints": stored.max_to_keep}
    goes_on = parts["model"].get("converted") is not None and not parts["optimizer"]
    if goes_on:
        options["on_nonfinite"] = training.get("on_nonfinite", "skip")  # as PAXml does
    options |= {name: getattr(stored, name) for name in _TAKEN - {"max_checkpoints"}}
    return RunConfig(
        model=parts["model"],
        optimizer=transform or (None if goes_on else made["optimizer"]),
        data=parts["data"],
        num_steps=int(steps),
        seed=int(seed),
        mesh=made["training.mesh"] if parts["training"].get("mesh") else None,
        options=replace(made["training"], **options),
        directory=stored.dir,
        loss_fn=given.get("loss_fn"),
    )


def plain(config: Any) -> dict[str, Any]:
    """A mapping or `ConfigDict` as nested dicts.

    Raises:
        ValueError: `config` is something else.
    """
    if hasattr(config, "items") and hasattr(config, "keys"):
        return {key: plain(value) if _is_section(value) else value for key, value in config.items()}
    raise ValueError(f"config: expected a mapping or a ConfigDict, found {config!r}")


def _is_section(value: Any) -> bool:
    return isinstance(value, Mapping) or type(value).__name__.endswith("ConfigDict")


def read_config(path: Path) -> dict[str, Any]:
    """A configuration from a file: YAML, JSON, or Python with `get_config()`.

    Raises:
        ValueError: the file has another suffix, or cannot be parsed.
    """
    if path.suffix == ".py":
        names: dict[str, Any] = {"__name__": path.stem, "__file__": str(path)}
        try:
            exec(compile(path.read_text(), str(path), "exec"), names)
            if "get_config" not in names:
                raise ValueError("has no function get_config()")
            return plain(names["get_config"]())
        except OSError:
            raise
        except Exception as error:  # raised by the user's code
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            raise ValueError(f"{path}: {kind}{error}") from error
    if path.suffix not in (".yaml", ".yml", ".json"):
        raise ValueError(f"{path}: expected a file .yaml, .json or .py")
    import yaml

    read = json.loads if path.suffix == ".json" else yaml.safe_load
    try:
        found = read(path.read_text())
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: {error}") from error
    if not isinstance(found, Mapping):
        raise ValueError(f"{path}: expected sections, found {found!r}")
    return plain(found)


def override(config: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with some settings changed.

    Args:
        config: sections.
        settings: 'section.key' -> value; `-` and `_` are equivalent.

    Raises:
        ValueError: what a key names as a section is not one.
    """
    made = plain(config)
    for name, value in settings.items():
        *sections, key = name.replace("-", "_").split(".")
        place: Any = made
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise ValueError(f"{name}: '{section}' is no section")
        place[key] = value
    return made
