"""How a command is declared: help, version, how much is said, and what its errors look like."""

import json
import logging
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import click

from efficientids_flax.text import readable

MISTAKES = (OSError, ValueError, TypeError, ImportError, MemoryError, FloatingPointError)
LONGEST = 8000  # characters of a message
SETTINGS: Mapping[str, Any] = {"help_option_names": ["-h", "--help"]}
_LEVEL = "efficientids_flax.level"  # in `Context.meta`, which a command has from its program


class Command(click.Command):
    """A command that ends with 0, with 1 and one line for bad input, with 2 for bad usage.

    Attributes:
        mistakes: the errors that bad input ends in; any other is a fault of ours.
    """

    mistakes: tuple[type[Exception], ...] = MISTAKES

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """`--num_steps` is `--num-steps`."""
        end = args.index("--") if "--" in args else len(args)
        return super().parse_args(ctx, [*map(_dashed, args[:end]), *args[end:]])

    def invoke(self, ctx: click.Context) -> Any:
        """Run it; `-v` shows where an error comes from."""
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _said(warnings.showwarning, quiet=_level(ctx) < 0)
                return super().invoke(ctx)
        except self.mistakes as error:
            if _level(ctx) > 0:
                traceback.print_exc(file=sys.stderr)
            message = self._in_its_words(_told(error))
            message = readable(message, LONGEST)
            raise click.ClickException(message) from error

    def _in_its_words(self, message: str) -> str:
        """A message that advises to give an argument by name (`ignore_keys`) names the option."""
        for parameter in self.params:
            if isinstance(parameter, click.Option):
                message = message.replace(f"`{parameter.name}`", parameter.opts[0])
        return message


def command(
    name: str, *, mistakes: tuple[type[Exception], ...] = MISTAKES
) -> Callable[[Callable[..., Any]], Command]:
    """Declares a command with the options that all have: -h, --version, -v, -q, --json.

    Args:
        name: after the program's.
        mistakes: see `Command`.

    Returns:
        A decorator of a function that takes `as_json` beside its own options.
    """

    def decorate(function: Callable[..., Any]) -> Command:
        made = click.command(name, cls=Command, context_settings=dict(SETTINGS))(function)
        made.mistakes = mistakes
        made.params += _SHARED
        return made

    return decorate


def combined(*declared: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Several options as one decorator, in this order in the help."""

    def decorate(function: Any) -> Any:
        for option in reversed(declared):
            function = option(function)
        return function

    return decorate


def echo(as_json: bool, result: Any, text: str, *, remark: bool = False) -> None:
    """Print what a command found out.

    Args:
        as_json: `result` on one line, whatever else.
        result: what JSON can hold.
        text: the same for people.
        remark: the text says only that something was done, so that `-q` leaves it out.
    """
    if as_json:
        click.echo(json.dumps(result))
    elif not (remark and is_quiet()):
        click.echo(readable(text))


def is_quiet() -> bool:
    """Whether `-q` was given."""
    return verbosity() < 0


def verbosity() -> int:
    """How often `-v` was given; -1 where `-q` was."""
    context = click.get_current_context(silent=True)
    return 0 if context is None else _level(context)


def _told(error: Exception) -> str:
    """What went wrong; the file first where the system names one, as in our own messages.

    With the notes of the error in one line, such as what is saved; JAX's are pages.
    """
    notes = [note for note in getattr(error, "__notes__", ()) if "\n" not in note]
    return "; ".join([_told_alone(error), *notes])


def _told_alone(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        return f"{' -> '.join(names)}: {error.strerror}"
    return str(error) or type(error).__name__


def _said(otherwise: Callable[..., None], *, quiet: bool) -> Callable[..., None]:
    """Warnings that are meant for users, without the place in the code that others have."""

    def show(message: Warning | str, category: type[Warning], *where: Any, **options: Any) -> None:
        if category is not UserWarning:
            otherwise(message, category, *where, **options)
        elif not quiet:
            click.echo(readable(f"warning: {message}"), err=True)

    return show


def _dashed(argument: str) -> str:
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value if name.startswith("--") else argument


def _level(ctx: click.Context) -> int:
    return ctx.meta.get(_LEVEL, 0)


def _louder(ctx: click.Context, _parameter: click.Parameter, count: int) -> None:
    if count:
        ctx.meta[_LEVEL] = count
        level = logging.INFO if count == 1 else logging.DEBUG
        logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s")


def _quieter(ctx: click.Context, _parameter: click.Parameter, quiet: bool) -> None:
    if quiet and _level(ctx) > 0:
        raise click.UsageError("-v and -q exclude each other")
    if quiet:
        ctx.meta[_LEVEL] = -1


volume = combined(
    click.option("-v", "--verbose", count=True, expose_value=False, is_eager=True,
                 callback=_louder, help="Log more, and show the traceback of an error."),
    click.option("-q", "--quiet", is_flag=True, expose_value=False, callback=_quieter,
                 help="Print only results and errors."),
    click.version_option(package_name="efficientids-flax", prog_name="efficientids-flax",
                         message="%(prog)s %(version)s"),
)  # fmt: skip

_SHARED = click.command()(
    combined(
        click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."), volume
    )(lambda: None)
).params
