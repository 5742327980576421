"""Runs a page of the documentation: its commands and its Python, in this process.

A process for each command would cost seconds of imports; a command that click made can be called
as well. The page runs in a directory that looks like the root of the repository.
"""

import ast
import contextlib
import doctest
import importlib
import io
import re
import runpy
import shlex
import sys
import tomllib
import warnings
from itertools import dropwhile
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner

from efficientids_flax.stored import doubts
from tests.docs.likeness import alike
from tests.docs.pages import ROOT, Block
from tests.docs.served import ended, start
from tests.docs.shared import once
from tests.docs.shell import SHELL

NOT_LINKED = {"build", "dist", "runs"}
MODULES = {
    "efficientids_flax.train": ["efficientids", "train"],
    "efficientids_flax.inference": ["efficientids", "recommend"],
}
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
MAIN = "efficientids"
FILLED = re.compile(r"\?(?: (\d+) (\d+))?")  # what `fill` replaces
PARSED = {"yaml": yaml.safe_load, "toml": tomllib.loads, "python": ast.parse}


class PageError(AssertionError):
    """A block does not do what its page says."""

    def __init__(self, block: Block, problem: str):
        super().__init__(f"{block.where}: {problem}")


def furnish(place: Path) -> None:
    """Make a directory that looks like the root of the repository, without what is built."""
    for entry in ROOT.iterdir():
        if entry.name not in NOT_LINKED and not entry.name.startswith("."):
            (place / entry.name).symlink_to(entry)


def run_page(blocks: list[Block]) -> None:
    """Run the blocks in their order, in the current directory.

    Raises:
        PageError: a block fails, prints something else, or cannot be run and does not say why.
    """
    with warnings.catch_warnings():
        # Pages that load what they converted without the job's files are told so, as users are.
        warnings.filterwarnings("default", ".*not all of its settings are known", UserWarning)
        with ended():
            _run(blocks)


def _run(blocks: list[Block]) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    printed = None
    for block in blocks:
        if block.not_run is not None:
            only_parse(block)
        elif block.title is not None:
            path = Path(block.title)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
        elif block.language == "console":
            run_console(block)
        elif block.language == "python":
            printed = run_python(block, names)
            continue
        elif block.language == "text" and block.below and printed is not None:
            compare(block, block.text, printed, "the block above")
        else:
            raise PageError(
                block,
                f"a block of {block.language or 'no language'!r} is not run: make it console or"
                " python, give it a title, or write <!-- not run: WHY --> above it",
            )
        printed = None


def only_parse(block: Block) -> None:
    """What is not run is at least right in form."""
    if block.language in PARSED and ">>>" not in block.text:
        try:
            PARSED[block.language](block.text)
        except (ValueError, SyntaxError, yaml.YAMLError) as error:
            raise PageError(block, f"cannot be parsed: {error}") from error
    if block.language == "console":
        for command, _ in commands_of(block):
            check_usage(block, command)


def commands_of(block: Block) -> list[tuple[str, str]]:
    """The commands after `$ `, and what is shown below each."""
    found: list[tuple[str, str]] = []
    lines = iter(block.text.splitlines())
    for line in lines:
        if line.startswith("$ "):
            command = line[2:]
            while command.endswith("\\"):
                command = command[:-1] + next(lines)
            found.append((command, ""))
        elif not found:
            raise PageError(block, "a console block begins with a command after '$ '")
        else:
            found[-1] = found[-1][0], f"{found[-1][1]}{line}\n"
    return found


def run_console(block: Block) -> None:
    """Run each command, and compare what it prints where the page shows something."""
    commands = commands_of(block)
    for number, (command, shown) in enumerate(commands, 1):
        words, settings = words_of(block, command)
        with pytest.MonkeyPatch.context() as environment:
            for name, value in settings.items():
                environment.setenv(name, value)
            code, printed = run_command(block, words)
        last = number == len(commands)
        fails = re.search("^Error:", shown, re.MULTILINE) is not None
        expected = block.exits if last and block.exits else int(fails)
        if code != expected and not FILLED.fullmatch(shown.strip()):
            raise PageError(block, f"{command}\nexits with {code}, not {expected}:\n{printed}")
        if shown.strip():
            compare(block, shown, printed, command)


def compare(block: Block, shown: str, printed: str, what: str) -> None:
    """Raise if the printed text is not what the page shows."""
    if not alike(shown, printed):
        raise PageError(block, f"{what}\nprints\n{printed}\nand the page shows\n{shown}")


def words_of(block: Block, command: str) -> tuple[list[str], dict[str, str]]:
    """The words of a command line, and the settings of the environment before them."""
    words, settings = shlex.split(command, comments=True), {}
    while words and re.match(r"^\w+=", words[0]):
        name, _, value = words.pop(0).partition("=")
        settings[name] = value
    if not words or any(word in {"|", "&&", ";", ">", "<"} for word in words):
        raise PageError(block, f"{command!r}: one command a line, please, without pipes")
    return words, settings


def run_command(block: Block, words: list[str]) -> tuple[int, str]:
    """Exit code, and what is printed to both streams."""
    found = click_command(words)
    if found is not None:
        command, name, arguments = found
        if arguments[:1] == ["serve"] and arguments[-1] == "&":
            return start(command.get_command(click.Context(command), "serve"), arguments[1:-1])
        if name == MAIN:
            return once([MAIN, *arguments], lambda: _invoked(command, name, arguments))
        return _invoked(command, name, arguments)
    if words[0] == "python" and len(words) > 1:
        return run_script(words[1:])
    if words[0] not in SHELL:
        raise PageError(block, f"{words[0]!r} is no command that a test can run")
    return 0, SHELL[words[0]](*words[1:]) or ""


def _invoked(command: click.Command, name: str, arguments: list[str]) -> tuple[int, str]:
    doubts._TOLD.clear()  # a command is a process of its own
    done = CliRunner().invoke(command, arguments, prog_name=name, catch_exceptions=False)
    return done.exit_code, done.output


def click_command(words: list[str]) -> tuple[click.Command, str, list[str]] | None:
    """The click command of a program of ours, its name, and its arguments."""
    if words[:2] == ["python", "-m"] and words[2] in MODULES:
        words = [*MODULES[words[2]], *words[3:]]
    if words[0] not in SCRIPTS:
        return None
    module, attribute = SCRIPTS[words[0]].split(":")
    return getattr(importlib.import_module(module), attribute), words[0], words[1:]


def run_script(arguments: list[str]) -> tuple[int, str]:
    """Run a file of Python as `python FILE ARGUMENTS...` does."""
    out = io.StringIO()
    saved, code = sys.argv, 0
    sys.argv = arguments
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    finally:
        sys.argv = saved
    return code, out.getvalue()


def run_python(block: Block, names: dict[str, Any]) -> str:
    """Run a block of Python and give what it prints; sessions (`>>>`) are compared at once."""
    if block.text.lstrip().startswith(">>>"):
        for example in doctest.DocTestParser().get_examples(block.text, block.where):
            printed = _executed(block, example.source, names, "single", session=True)
            if example.want or printed:
                compare(block, example.want, printed, example.source)
        return ""
    return _executed(block, block.text, names, "exec")


def _executed(
    block: Block, source: str, names: dict[str, Any], mode: str, *, session: bool = False
) -> str:
    out = io.StringIO()
    code = compile("\n" * block.line * (not session) + source, block.page, mode)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            exec(code, names)
    except Exception as error:
        if not session:
            raise PageError(block, f"{type(error).__name__}: {error}") from error
        kind = type(error)
        named = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
        out.write(f"{named}{kind.__qualname__}: {error}\n")
    return out.getvalue()


def check_usage(block: Block, command: str) -> None:
    """A command that is not run is at least one that could be: click takes its options."""
    words = list(dropwhile(re.compile(r"^\w+=").match, shlex.split(command, comments=True)))
    if words[:1] == ["make"]:
        targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
        unknown = [word for word in words[1:] if "=" not in word and word not in targets]
        if unknown:
            raise PageError(block, f"make has no target {unknown[0]!r}")
    found = click_command(words)
    if found is None:
        return
    group, name, arguments = found
    try:
        context = group.make_context(name, list(arguments))
        while isinstance(context.command, click.Group):
            rest = [*context._protected_args, *context.args]  # as click's own `Group.invoke` does
            name, inner, rest = context.command.resolve_command(context, rest)
            if inner is None:
                raise PageError(block, f"{command!r} names no command")
            context = inner.make_context(name, rest, parent=context)
    except click.exceptions.Exit:
        return
    except click.UsageError as error:
        raise PageError(block, f"{command}\n{error.format_message()}") from error
