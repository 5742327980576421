"""Options that several commands have, each declared once."""

import ast
import json
import math
import re
from collections.abc import Sequence
from typing import Any

import click

from efficientids_flax.commands.declare import combined

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_UNITS |= {f"{unit}i": 1 << 10 * power for power, unit in enumerate("kmgt", 1)}
_NAMED = {"true": True, "false": False}  # as people write them; `none` is a text, and some values


class Size(click.ParamType):
    """A number of bytes such as 512MiB or 2GB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The texts, without the spaces around them; an empty text has none."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?", str(value).lower())
        if found is None or found.group(2) not in _UNITS:
            self.fail(f"{value!r} is not a size such as 512MiB or 2GB", param, ctx)
        number = int(float(found.group(1)) * _UNITS[found.group(2)])
        if number < 1 << 20:
            self.fail("at least 1MiB is needed", param, ctx)
        return number


class Real(click.FloatRange):
    """A number in a range, which no infinity and no NaN is."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The texts, without the spaces around them; an empty text has none."""
        found = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value!r} is no finite number", param, ctx)
        return found


class Ids(click.ParamType):
    """Whole numbers with commas between them.

    Attributes:
        least: that each may be; None: any.
    """

    name = "ids"

    def __init__(self, least: int | None = None) -> None:
        self.least = least

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[int]:
        """The texts, without the spaces around them; an empty text has none."""
        if isinstance(value, list):
            return value
        try:
            found = numbers(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if self.least is not None and (small := [one for one in found if one < self.least]):
            self.fail(f"{small[0]} is less than {self.least}", param, ctx)
        return found


class Texts(click.ParamType):
    """Texts with commas between them."""

    name = "texts"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[str]:
        """The texts, without the spaces around them; an empty text has none."""
        if isinstance(value, list):
            return value
        return [part.strip() for part in value.split(",")] if value.strip() else []


def numbers(text: str) -> list[int]:
    """The whole numbers of '1,2,3'; an empty text has none.

    Raises:
        ValueError: naming what is none.
    """
    found = []
    for part in text.split(",") if text.strip() else []:
        try:
            found.append(int(part))
        except ValueError as error:
            raise ValueError(f"{part.strip()!r} is not a whole number, in {text!r}") from error
    return found


def value_of(text: str) -> Any:
    """The value that a text stands for: JSON, a Python literal such as .9 or None, else text."""
    text = text.strip()
    if text.lower() in _NAMED:
        return _NAMED[text.lower()]
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError):
            continue
    return text


def _settings(
    _context: click.Context, _parameter: click.Parameter, texts: Sequence[str]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise click.BadParameter(f"{text!r} is not KEY=VALUE")
        found[key.strip()] = value_of(value)
    return found


def set_option(help: str) -> Any:  # noqa: A002 (click's own word)
    """`--set KEY=VALUE`, repeatable: a mapping `settings` of dotted keys."""
    return click.option("--set", "settings", multiple=True, metavar="KEY=VALUE",
                        callback=_settings, help=f"{help} Repeatable.")  # fmt: skip


def count(flag: str, told: str, default: int | None = None, *, least: int = 1) -> Any:
    """An option that is a whole number; its help says a default."""
    return click.option(flag, type=click.IntRange(min=least), help=told, **_shown(default))


def choice(flag: str, words: Sequence[str], told: str, default: str | None = None) -> Any:
    """An option that is one of these words; its help says a default."""
    return click.option(flag, type=click.Choice(words), help=told, **_shown(default))


def _shown(default: Any) -> dict[str, Any]:
    return {} if default is None else {"default": default, "show_default": True}


allow_change = click.option(
    "--allow-change", "allowed", multiple=True, metavar="NAME",
    help="Change to allow in a resumed run, e.g. batch_size. Repeatable.",
)  # fmt: skip
step = count("--step", "Step to use (default: the newest).", least=0)
overwrite = click.option("--overwrite", is_flag=True, help="Replace OUT if it is there.")
compute_dtype = choice(
    "--dtype", ("float32", "bfloat16", "float16"), "Compute in this dtype (default: as configured)."
)
max_history = count("--max-history", "Use only the last N ids (default: the trained length).")
clustering = click.option(
    "--clustering", metavar="FILE", help="Clustering of a recommender (default: the one beside it)."
)
tokenizer = click.option(
    "--tokenizer", metavar="NAME", help="A folder, or a model in the HuggingFace cache."
)
data_dir = click.option("--data-dir", metavar="DIR", help="Directory of prepared data.")
num_items = count("--num-items", "Number of items, if nothing else says it.")
distributed = combined(
    click.option("--distributed", is_flag=True,
                 help="Share the work of several processes."),
    click.option("--coordinator", metavar="HOST:PORT", help="With --distributed: address of "
                                                            "process 0."),
    count("--processes", "With --distributed: number of processes."),
    count("--process", "With --distributed: number of this process.", least=0),
)  # fmt: skip


def check_distributed(given: dict[str, Any]) -> None:
    """Raise `UsageError` for what belongs to `--distributed` without it."""
    for name in ("coordinator", "processes", "process"):
        if given[name] is not None and not given["distributed"]:
            raise click.UsageError(f"--{name} goes with --distributed")
