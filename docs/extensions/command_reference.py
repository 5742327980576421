"""A Markdown extension: a line `<!-- commands -->` becomes the reference of all commands.

`<!-- command table -->` becomes the rows of a table of them. What is said comes from the click
commands that `pyproject.toml` names, so that the page tells what this version of the program takes.
The options that all commands have are left to the page.
"""

import importlib
import inspect
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from markdown import Extension, Markdown
from markdown.preprocessors import Preprocessor

from efficientids_flax.commands.program import COMMANDS

MARK, TABLE = "<!-- commands -->", "<!-- command table -->"
MAIN = "efficientids"
SHARED = {"_click_default_help", "version", "verbose", "quiet", "as_json"}
PROJECT = Path(__file__).parents[2] / "pyproject.toml"


def scripts() -> dict[str, click.Command]:
    """The command of each program that the package installs."""
    found = {}
    for name, target in tomllib.loads(PROJECT.read_text())["project"]["scripts"].items():
        module, attribute = target.split(":")
        found[name] = getattr(importlib.import_module(module), attribute)
    return found


def reference() -> str:
    """All commands as Markdown: the subcommands of the program, then those that stand alone."""
    programs = scripts()
    documented: dict[str, click.Command] = {}
    for name, command in subcommands(programs[MAIN]):
        documented[f"{MAIN} {name}"] = command
    other_names: dict[str, list[str]] = {}
    for name, command in programs.items():
        same = [known for known, one in documented.items() if one.callback is command.callback]
        if same:
            other_names.setdefault(same[0], []).append(name)
        elif name != MAIN:
            documented[name] = command
    return "\n\n".join(
        section(name, command, other_names.get(name, [])) for name, command in documented.items()
    )


def table() -> str:
    """A row for each subcommand of the program: what it does, with a link to more."""
    return "\n".join(
        f"| [`{name}`](#{MAIN}-{name}) | {plain(told)} |" for name, (_, told) in COMMANDS.items()
    )


def subcommands(group: click.Command) -> Iterator[tuple[str, click.Command]]:
    """The commands of a group, in the order of its help; groups in it are gone through."""
    context = click.Context(group)
    for name in group.list_commands(context) if isinstance(group, click.Group) else ():
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        if isinstance(command, click.Group):
            yield from ((f"{name} {inner}", one) for inner, one in subcommands(command))
        else:
            yield name, command


def section(name: str, command: click.Command, other_names: list[str]) -> str:
    """Heading, usage, what it does, and a table of its options."""
    context = click.Context(command, info_name=name)
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    parts = [f"## {name}"]
    if other_names:
        parts.append("Also installed as " + ", ".join(f"`{one}`" for one in other_names) + ".")
    parts += [f"```text\n{usage}\n```", described(command)]
    rows = [row(option, context) for option in command.get_params(context)
            if isinstance(option, click.Option) and not option.hidden
            and option.name not in SHARED]  # fmt: skip
    if rows:
        parts.append("\n".join(["| option | meaning | default |", "| --- | --- | --- |", *rows]))
    return "\n\n".join(parts)


def described(command: click.Command) -> str:
    """The help text; `\\b`, by which click keeps line breaks, makes a block of code."""
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    return "\n\n".join(
        "```text\n" + text.lstrip("\b\n") + "\n```" if text.startswith("\b") else plain(text)
        for text in paragraphs
    )


def row(option: click.Option, context: click.Context) -> str:
    """One line of the table."""
    names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
    if not option.is_flag and not option.count:
        names += f" `{option.make_metavar(context).removesuffix(' RANGE')}`"
    default = option.get_default(context, call=False)
    shown = "" if option.is_flag or not isinstance(default, str | int | float) else f"`{default}`"
    return f"| {names} | {plain(option.help or '')} | {shown} |"


def plain(text: str) -> str:
    """Text of a help as Markdown: nothing in it is markup, and flags are code."""
    text = text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
    return text.replace("_", "\\_")


class _Preprocessor(Preprocessor):
    def run(self, lines: list[str]) -> list[str]:
        for mark, made in ((TABLE, table), (MARK, reference)):
            if mark in lines:
                place = lines.index(mark)
                lines = [*lines[:place], *made().split("\n"), *lines[place + 1 :]]
        return lines


class CommandReference(Extension):
    """Puts the reference where the mark stands."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802
        """Register before the fences are taken out (25) and HTML is (20)."""
        md.preprocessors.register(_Preprocessor(md), "command_reference", 40)


def makeExtension(**options: Any) -> CommandReference:  # noqa: N802
    """What Markdown calls."""
    return CommandReference(**options)
