"""The command `evaluate`: what a checkpoint of a run, or an exported model, reaches."""

import math
from collections.abc import Mapping
from typing import Any

import click

from efficientids_flax.commands import combined, command, echo
from efficientids_flax.commands.options import Ids, choice, count
from efficientids_flax.commands.options import step as step_option
from efficientids_flax.text import metrics_text
from efficientids_flax.train.commands.flags import configuration, run_options, sections

# fmt: off
IN_FULL = combined(
    click.option("--checkpoint", metavar="OUT",
                 help="An exported or converted recommender, with --data-dir, instead of a run."),
    click.option("--report", metavar="DIR",
                 help="Write report.json and report.html: all metrics, with intervals."),
    click.option("--cutoffs", type=Ids(least=1), help="k of the metrics (default: 1,5,10,20)."),
    click.option("--keep-seen", is_flag=True, help="Keep items that the user has seen in the "
                                                   "ranking."),
    click.option("--together", is_flag=True,
                 help="Ask once for all held-out items of a user."),
    choice("--scoring", ("log_probs", "original"),
           "Rank by log-probabilities, or by the original's scores."),
    count("--sampled", "Rank among N drawn items; metrics are named sampled_..."),
    count("--resamples", "Resamples of the bootstrap (default: 1000).", least=0),
)
# fmt: on
OF_RUNS = ("config", "output_dir", "step", "settings")


@command("evaluate")
@run_options
@choice("--split", ("eval", "test"), "Data to evaluate on.", "eval")
@IN_FULL
@step_option  # fmt: skip
def evaluate(
    config: str | None, settings: dict[str, Any], split: str, step: int | None, as_json: bool,
    checkpoint: str | None, report: str | None, **flags: Any,
) -> None:  # fmt: skip
    """Evaluate a checkpoint of a run on its own data, or an exported model on a directory."""
    how = _options(flags, in_full=bool(checkpoint or report))
    if checkpoint is None and report is None:
        from efficientids_flax.train.run import evaluate as run

        found = run(configuration(config, settings, flags), split, step)
        echo(as_json, found, metrics_text(found))
        return
    from efficientids_flax.evaluation import EvaluationOptions, evaluate_stored, write_report

    options = EvaluationOptions.from_dict(how)
    if checkpoint is not None:
        given = {**flags, "config": config, "step": step, "settings": settings}
        for name in OF_RUNS:
            if given.get(name):
                flag = "--set" if name == "settings" else f"--{name.replace('_', '-')}"
                raise click.UsageError(f"{flag} is of a run; leave it out, or --checkpoint")
        if not flags.get("data_dir"):
            raise click.UsageError("--checkpoint needs --data-dir, what to evaluate on")
        evaluation, about = evaluate_stored(checkpoint, flags["data_dir"], split, options)
        values: dict[str, Any] = evaluation.values()
    else:
        from efficientids_flax.train.run import evaluate_run

        evaluation, about, step = evaluate_run(
            sections(config, settings, flags), split, step, options
        )
        values = {"step": step, **evaluation.values()}
    if report is not None:
        values["report"] = str(write_report(report, evaluation, about)[1])
    echo(as_json, _known(values), metrics_text(values))


def _options(flags: dict[str, Any], *, in_full: bool) -> dict[str, Any]:
    """Takes the options of `EvaluationOptions` out of the flags."""
    given = {name: flags.pop(name) for name in ("cutoffs", "scoring", "sampled", "resamples")}
    together, keep_seen = flags.pop("together"), flags.pop("keep_seen")
    made = {name: value for name, value in given.items() if value is not None}
    made |= {"together": True} if together else {}
    made |= {"exclude_seen": False} if keep_seen else {}
    if made and not in_full:
        name = next(iter(made)).replace("exclude_seen", "keep-seen")
        raise click.UsageError(f"--{name} goes with --report or --checkpoint")
    return made


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: null in its place."""
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in values.items()
    }
