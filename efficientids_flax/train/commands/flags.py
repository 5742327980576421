"""The flags of a run, which stand for settings of its configuration."""

from pathlib import Path
from typing import Any

import click

from efficientids_flax.commands.options import allow_change, set_option

# fmt: off
FLAGS: dict[str, tuple[str, type, str]] = {
    # flag: place in the configuration, type, what it is
    "data_dir":         ("data.dir",                str,   "Directory of prepared data"),
    "batch_size":       ("data.batch_size",         int,   "Rows of a step, on all devices"),
    "num_steps":        ("training.num_steps",      int,   "Total steps, with earlier ones"),
    "log_every":        ("training.log_every",      int,   "Steps between logs"),
    "seed":             ("training.seed",           int,   "For initial values and dropout"),
    "learning_rate":    ("optimizer.learning_rate", float, "Highest rate of the schedule"),
    "warmup_steps":     ("optimizer.warmup_steps",  int,   "Steps of linear warm-up"),
    "weight_decay":     ("optimizer.weight_decay",  float, "Decoupled weight decay"),
    "grad_clip":        ("optimizer.clip_norm",     float, "Largest global gradient norm"),
    "checkpoint_every": ("checkpoint.save_every",   int,   "Steps between checkpoints"),
    "max_checkpoints":  ("checkpoint.max_to_keep",  int,   "How many of the newest to keep"),
    "output_dir":       ("checkpoint.dir",          str,   "Directory of the run"),
}
# fmt: on

DEFAULT_DIR = "runs/train"  # of a run that names none; `checkpoint.dir=null` has none


def run_options(command: Any) -> Any:
    """Adds `--config`, `--set` and the flags of `FLAGS`, which override the configuration."""
    for name, (place, kind, told) in reversed(FLAGS.items()):
        names = [f"--{name.replace('_', '-')}", *(["--lr"] if name == "learning_rate" else [])]
        metavar = "DIR" if name.endswith("_dir") else None
        default = f" (default: {DEFAULT_DIR})" if name == "output_dir" else ""
        command = click.option(
            *names, name, type=kind, metavar=metavar, help=f"{told} ({place}){default}."
        )(command)
    command = allow_change(command)
    command = set_option("A setting of the run, e.g. training.eval_every=100.")(command)
    told = "The run's sections: .yaml, .json, or .py with get_config()."
    return click.option("--config", metavar="FILE", help=told)(command)


def configuration(
    config: str | None, settings: dict[str, Any], flags: dict[str, Any]
) -> dict[str, Any]:
    """The configuration that options of `run_options` stand for, ready for a run.

    Raises:
        ValueError: listing what is wrong.
    """
    from efficientids_flax.train.run import built

    return built(sections(config, settings, flags))


def sections(config: str | None, settings: dict[str, Any], flags: dict[str, Any]) -> dict[str, Any]:
    """The same as sections, of which nothing is built yet."""
    from efficientids_flax.train.run import override, read_config

    given = read_config(Path(config)) if config else {}
    allowed = flags.pop("allowed", ())
    named = {FLAGS[name][0]: value for name, value in flags.items() if value is not None}
    if allowed:
        named["training.allow_changes"] = [name.replace("-", "_") for name in allowed]
    made = override(given, settings | named)
    stored = made.get("checkpoint") or {}
    if isinstance(stored, dict) and "dir" not in stored:
        made["checkpoint"] = {**stored, "dir": DEFAULT_DIR}
    return made
