"""The command `train`, which is `python -m efficientids_flax.train` too."""

from typing import Any

import click

from efficientids_flax.commands import command, echo, is_quiet
from efficientids_flax.commands.options import check_distributed, distributed
from efficientids_flax.text import metrics_text
from efficientids_flax.train.commands.flags import DEFAULT_DIR, configuration, run_options


@command("train")
@run_options
@click.option("--profile", type=click.IntRange(min=1), metavar="N", help="Trace N steps.")
@distributed
def train(
    config: str | None, settings: dict[str, Any], profile: int | None, as_json: bool, **given: Any
) -> None:
    """Train a model as a file describes, or resume its run."""
    check_distributed(given)
    how = {name: given.pop(name) for name in ("coordinator", "processes", "process")}
    import jax

    from efficientids_flax.host_memory import keep_freed_memory
    from efficientids_flax.train.alarm import initialize, one_for_all
    from efficientids_flax.train.run import train as run

    if given.pop("distributed"):
        initialize(*how.values())
    if jax.default_backend() == "cpu":
        keep_freed_memory()
    if profile:
        settings |= {"training.enable_profiling": True, "training.profile_steps": profile}
    if is_quiet():
        settings |= {"training.progress": "none"}
    with one_for_all():
        made = configuration(config, settings, given)
        if made["checkpoint"]["dir"] == DEFAULT_DIR and not is_quiet():
            click.echo(f"checkpoints and logs go to {DEFAULT_DIR} (--output-dir)", err=True)
        result = run(made)
    last = result.history[-1] if result.history else {}
    found = {"steps": result.last_step, **last, **result.test}
    if (tested := int(result.state.step)) != result.last_step:
        found["best_step"] = tested  # what was tested, and what `export` writes
    echo(as_json, found, metrics_text(found))
