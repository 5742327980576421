"""The commands, run in this process, and what they may end with."""

import json
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner, Result

from converters.commands.convert import convert

BETAS = ("--set", "beta1=0.9", "--set", "beta2=0.99")


def invoke(command: click.Command, *arguments: str | Path) -> Result:
    """Run a command; anything but an exit is a fault of it."""
    result = CliRunner().invoke(command, list(map(str, arguments)))
    assert isinstance(result.exception, SystemExit | None), result.exception
    return result


def converted(*arguments: str | Path) -> Result:
    result = invoke(convert, *arguments)
    assert result.exit_code == 0, result.output
    return result


def refused(*arguments: str | Path) -> str:
    result = invoke(convert, *arguments)
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    return result.stderr


def config(out: Path) -> dict[str, Any]:
    return json.loads((out / "config.json").read_text())
