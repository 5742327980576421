"""The language of rules: which source leaf becomes which target leaf, by which operation.

A rule is one line: target path, source path, operation. Paths have holes: `{i}` stands for a
number, `{query|key|value}` for one of these words, and a last component `{rest*}` for any path. A
hole that occurs in both paths has the same value in both. A hole that occurs in only one path
belongs to an operation: `stack` and `join` make one target from many sources, `unstack` and `part`
make many targets from one source.

The operations are joined by `;` and applied to the source from left to right:

    transpose 1 0      reorder the axes
    merge 1            merge axes 1 and 2 into one
    split 1 8 16       split axis 1 into two, of sizes 8 and 16
    stack 0            stack the sources, one per value of the hole, along a new axis 0
    unstack 0          make one target per index of axis 0 and drop the axis; `unstack 0 1 4`
                       numbers the targets from 1 in steps of 4
    join 0, part 0     concatenate or divide along axis 0, which stays
    cast bfloat16      change the dtype
"""

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from converters.errors import MappingError
from converters.zarr import dtype_named

HOLE = re.compile(r"\{([^{}]*)\}")
MANY_TO_ONE = ("stack", "join")
ONE_TO_MANY = ("unstack", "part")
SHOWN = 20  # problems that one error lists in full

Filling = dict[str, str]  # hole -> the text that it stands for


@dataclass(frozen=True)
class Rule:
    """One line of a table.

    Attributes:
        target: path of the result, with holes.
        source: path in the checkpoint, with holes.
        op: operations, see the module's docstring; empty for a plain rename.
        required: whether it is an error if no leaf matches.
    """

    target: str
    source: str
    op: str = ""
    required: bool = False

    def __str__(self) -> str:
        return f"{self.target} <- {self.source}" + (f" ({self.op})" if self.op else "")

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Matches the source paths of the rule; it has one group per hole."""
        return _compile(self.source)

    @cached_property
    def steps(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """(name, arguments) of each operation, in order."""
        words = (step.split() for step in self.op.split(";") if step.strip())
        return tuple((step[0], tuple(step[1:])) for step in words)


@dataclass(frozen=True)
class Ignore:
    """Sources that are left out on purpose, and why."""

    source: str
    reason: str

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Matches the paths that are left out."""
        return _compile(self.source)


def check_rules(rules: Iterable[Rule | Ignore]) -> None:
    """Raise `MappingError` with every fault of a table that can be found without a checkpoint."""
    problems: list[str] = []
    for rule in rules:
        try:
            _ = rule.pattern
            if isinstance(rule, Rule):
                _compile(rule.target)
                _check_rule(rule)
        except (ValueError, re.error) as error:
            problems.append(f"{rule}: {error}")
    raise_problems(problems, "The rule table has")


def holes(path: str) -> dict[str, tuple[str, ...] | None]:
    """The holes of a path: name -> the words it may stand for; None for numbers and for `*`."""
    return {text: tuple(text.split("|")) if "|" in text else None for text in HOLE.findall(path)}


def fill(path: str, filling: Filling) -> str:
    """The path with its holes filled."""
    return HOLE.sub(lambda hole: filling[hole.group(1)], path)


def nearest(name: str, names: Iterable[str]) -> list[str]:
    """Up to three of `names` that are most similar to `name`, for messages."""
    return difflib.get_close_matches(name, list(names), 3, 0.5)


def raise_problems(problems: Sequence[str], opening: str) -> None:
    """Raise a `MappingError` that lists the problems, if there are any."""
    if not problems:
        return
    shown = list(problems[:SHOWN])
    if len(problems) > SHOWN:
        shown.append(f"... and {len(problems) - SHOWN} more")
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    raise MappingError("\n  ".join([f"{opening} {count}:", *shown]))


@lru_cache(maxsize=4096)  # a table is checked and applied for each part of the state
def _compile(path: str) -> re.Pattern[str]:
    parts: list[str] = []
    position = 0
    seen: dict[str, int] = {}
    for hole in HOLE.finditer(path):
        parts.append(_literal(path[position : hole.start()]))
        text = hole.group(1)
        if text in seen:
            parts.append(f"(?P=h{seen[text]})")
        else:
            seen[text] = len(seen)
            inner = "0|[1-9][0-9]*"  # without leading zeros, so that a number has one spelling
            if text.endswith("*"):
                inner = ".+"
                if "|" in text or hole.end() < len(path):
                    raise ValueError(f"{{{text}}} stands for any path and so at the end only")
            elif "|" in text:
                inner = "|".join(map(re.escape, text.split("|")))
            parts.append(f"(?P<h{seen[text]}>{inner})")
        position = hole.end()
    return re.compile("".join(parts) + _literal(path[position:]), re.DOTALL)


def _literal(text: str) -> str:
    if "{" in text or "}" in text:
        raise ValueError("a brace is not closed")
    return re.escape(text)


def _check_rule(rule: Rule) -> None:
    """Raise `ValueError` unless the holes of a rule fit its operations."""
    extra_source = [hole for hole in holes(rule.source) if hole not in holes(rule.target)]
    extra_target = [hole for hole in holes(rule.target) if hole not in holes(rule.source)]
    many = [name for name, _ in rule.steps if name in MANY_TO_ONE]
    one = [name for name, _ in rule.steps if name in ONE_TO_MANY]
    if len(extra_source) != len(many):
        raise ValueError(f"holes {extra_source} of the source need one stack or join each")
    if len(extra_target) != len(one):
        raise ValueError(f"holes {extra_target} of the target need one unstack or part each")
    if len(many) + len(one) > 1:
        raise ValueError("one of stack, join, unstack and part at the most")
    counts = {"merge": 1, "split": 3, "stack": 1, "unstack": 1, "join": 1, "part": 1, "cast": 1}
    for name, arguments in rule.steps:
        if name != "transpose" and name not in counts:
            known = ", ".join(["transpose", *counts])
            raise ValueError(f"unknown operation '{name}'; known are {known}")
        numbered = (name, len(arguments)) == ("unstack", 3)
        if name != "transpose" and len(arguments) != counts[name] and not numbered:
            raise ValueError(f"{name} takes {counts[name]} argument(s), not {len(arguments)}")
        if name == "cast":
            dtype_named(arguments[0])
        elif not all(argument.isdecimal() for argument in arguments):
            raise ValueError(f"{name} takes numbers, not {' '.join(arguments)}")
