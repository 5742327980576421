"""The commands: parse, train or evaluate, print."""

import json
import sys
from pathlib import Path
from typing import Any

import click

# fmt: off
FLAGS = {
    # flag                  place in the configuration
    "data_dir":             "data.dir",
    "batch_size":           "data.batch_size",
    "num_steps":            "training.num_steps",
    "log_every":            "training.log_every",
    "seed":                 "training.seed",
    "learning_rate":        "optimizer.learning_rate",
    "warmup_steps":         "optimizer.warmup_steps",
    "weight_decay":         "optimizer.weight_decay",
    "grad_clip":            "optimizer.clip_norm",
    "checkpoint_every":     "checkpoint.save_every",
    "max_checkpoints":      "checkpoint.max_to_keep",
    "output_dir":           "checkpoint.dir",
}
# fmt: on
SETTINGS: dict[str, Any] = {
    "help_option_names": ["-h", "--help"],
    "token_normalize_func": lambda token: token.replace("_", "-"),
}


def run_flags(command: Any) -> Any:
    """Adds the flags of `FLAGS`, which override the configuration; `-` and `_` are alike."""
    kinds: dict[str, Any] = {
        "data_dir": str, "output_dir": str, "learning_rate": float, "weight_decay": float,
        "grad_clip": float,
    }  # fmt: skip
    for name, place in reversed(FLAGS.items()):
        names = [f"--{name.replace('_', '-')}", *(["--lr"] if name == "learning_rate" else [])]
        command = click.option(*names, name, type=kinds.get(name, int), help=f"{place}.")(command)
    return command


def settings_of(flags: dict[str, Any]) -> list[str]:
    """The flags that were given, as 'section.key=value'."""
    return [f"{FLAGS[name]}={value}" for name, value in flags.items() if value is not None]


@click.group(context_settings=SETTINGS)
def main() -> None:
    """Train, evaluate and export models."""


@main.command(context_settings=SETTINGS)
@click.option("--config", metavar="FILE", help="Sections: .yaml, .json, or .py with get_config().")
@click.option("--set", "settings", multiple=True, metavar="A.B=C", help="One setting; repeatable.")
@click.option("--profile", type=click.IntRange(min=1), metavar="N", help="Trace N steps.")
@click.option("--distributed", is_flag=True, help="Join the other processes of the cluster.")
@click.option("--coordinator", metavar="HOST:PORT", help="Of process 0, with --distributed.")
@click.option("--processes", type=int, help="How many, with --distributed.")
@click.option("--process", type=int, help="Which this is, with --distributed.")
@run_flags
def train(
    config: str | None,
    settings: tuple[str, ...],
    profile: int | None,
    distributed: bool,
    coordinator: str | None,
    processes: int | None,
    process: int | None,
    **flags: Any,
) -> None:
    """Train; goes on where the output directory stands."""
    import jax

    from efficientids_flax.host_memory import keep_freed_memory
    from efficientids_flax.train.run import train as run
    from efficientids_flax.train.state import initialize

    if distributed:
        initialize(coordinator, processes, process)
    if jax.default_backend() == "cpu":
        keep_freed_memory()
    traced = ["training.enable_profiling=True", f"training.profile_steps={profile}"]
    changes = [*settings, *settings_of(flags), *(traced if profile else [])]
    try:
        result = run(_configuration(config, changes))
    except (ValueError, TypeError, OSError, ImportError, FloatingPointError) as error:
        raise click.ClickException(str(error)) from error
    last = result.history[-1] if result.history else {}
    click.echo(json.dumps({"steps": int(result.state.step), **last, **result.test}))


@main.command(context_settings=SETTINGS)
@click.option("--config", metavar="FILE", help="Of the run.")
@click.option("--set", "settings", multiple=True, metavar="A.B=C", help="One setting; repeatable.")
@click.option("--split", type=click.Choice(["eval", "test"]), default="eval", show_default=True)
@click.option("--step", type=int, help="Of the checkpoint; the newest otherwise.")
@run_flags
def evaluate(
    config: str | None, settings: tuple[str, ...], split: str, step: int | None, **flags: Any
) -> None:
    """Evaluate a checkpoint of a run."""
    from efficientids_flax.train.run import evaluate as run

    try:
        found = run(_configuration(config, [*settings, *settings_of(flags)]), split, step)
    except (ValueError, TypeError, OSError, ImportError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(json.dumps(found))


@main.command(context_settings=SETTINGS)
@click.argument("out")
@click.option("--config", metavar="FILE", help="Of the run.")
@click.option("--set", "settings", multiple=True, metavar="A.B=C", help="One setting; repeatable.")
@click.option("--step", type=int, help="Of the checkpoint; the best, or the newest, otherwise.")
@run_flags
def export(
    out: str, config: str | None, settings: tuple[str, ...], step: int | None, **flags: Any
) -> None:
    """Write the model of a run to OUT, as converted ones are, for inference."""
    from efficientids_flax.train.run import export as run

    try:
        written = run(_configuration(config, [*settings, *settings_of(flags)]), out, step)
    except (ValueError, TypeError, OSError, ImportError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{out}: the model of step {written}")


def _configuration(config: str | None, settings: list[str]) -> dict[str, Any]:
    from efficientids_flax.train.run import built, override, read_config

    given = read_config(Path(config)) if config else {}
    return built(override(given, settings))


def train_module() -> None:
    """`python -m efficientids_flax.train` is `efficientids train`."""
    train(prog_name="python -m efficientids_flax.train", args=sys.argv[1:])
