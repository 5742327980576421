"""The program `efficientids`: all commands by name, each imported when it is called.

`efficientids --help` and completion read the table alone.
"""

import difflib
import sys
from importlib import import_module
from typing import Any

import click
from click.shell_completion import CompletionItem

from efficientids_flax.commands.declare import SETTINGS, volume

CONVERTERS, PARITY = "converters.commands", "parity_tests.commands"
PREPARE = "efficientids_flax.prepare.commands"
TRAIN, INFERENCE = "efficientids_flax.train.commands", "efficientids_flax.inference.commands"
SERVE = "efficientids_flax.serve.commands"
CLUSTER = "efficientids_flax.cluster.commands"
# fmt: off
COMMANDS = {
    # name                where the module and function of that name are, what it does
    "inspect":            (CONVERTERS, "Print what a PAXml checkpoint holds."),
    "convert":            (CONVERTERS, "Convert a PAXml checkpoint to Flax."),
    "convert-hf":         (CONVERTERS, "Convert a HuggingFace model, or back."),
    "convert-clustering": (CONVERTERS, "Turn a pickled clustering into a safe file."),
    "parity":             (PARITY,     "Compare a converted model with a recording."),
    "find-settings":      (PARITY,     "Find missing settings of a checkpoint from data."),
    "prepare":            (PREPARE,    "Make training data from interactions."),
    "embed":              (CONVERTERS, "Make a vector for each item."),
    "cluster":            (CLUSTER,    "Group the items of a catalogue in clusters."),
    "train":              (TRAIN,      "Train a model, or resume a run."),
    "evaluate":           (TRAIN,      "Evaluate a run, or an exported model."),
    "export":             (TRAIN,      "Write a run's model for inference."),
    "recommend":          (INFERENCE,  "Recommend the next items of a history."),
    "serve":              (SERVE,      "Serve recommendations over HTTP."),
    "generate":           (INFERENCE,  "Continue a prompt with a language model."),
    "forecast":           (INFERENCE,  "Forecast time series."),
}
# fmt: on


class Program(click.Group):
    """The commands of `COMMANDS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, in the order of the work."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports a command."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        return getattr(import_module(f"{COMMANDS[cmd_name][0]}.{name}"), name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command of the first word; what is none is told with the nearest."""
        name = args[0].replace("_", "-")
        if name not in COMMANDS and not name.startswith("-"):
            near = difflib.get_close_matches(name, COMMANDS, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}"
            ctx.fail(f"No such command '{args[0]}'; {hint}")
        return super().resolve_command(ctx, [name, *args[1:]])

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, told) for name, (_, told) in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Names that begin so, and this program's options."""
        found = [
            CompletionItem(name, help=told)
            for name, (_, told) in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return found + click.Command.shell_complete(self, ctx, incomplete)


@click.group("efficientids", cls=Program, context_settings=dict(SETTINGS))
@volume
def main() -> None:
    """Bring PAXml models to Flax: convert, check, train, recommend.

    Each command has its own help: efficientids COMMAND --help.
    """


def run_module(name: str, module: str) -> Any:
    """`python -m MODULE` as the command of this name."""
    found = main.get_command(click.Context(main), name)
    assert found is not None
    return found.main(sys.argv[1:], f"python -m {module}")
