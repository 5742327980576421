"""Rule tables: which source leaf becomes which target leaf, by which operation.

A rule is one line: target path, source path, operation. Paths have holes: `{i}` stands for a
number, `{query|key|value}` for one of these words, and a last component `{rest*}` for any path. A
hole on both sides must be filled alike. A hole on one side only belongs to an operation that goes
from many to one (`stack`, `join`) or from one to many (`unstack`, `part`).

Operations, joined by `;`, are applied to the source from left to right:

    transpose 1 0      axes in this order
    merge 1            axes 1 and 2 as one
    split 1 8 16       axis 1 as two, of 8 and 16
    stack 0            one source a value of the hole, along a new axis 0
    unstack 0          one target an index of axis 0, which goes; `unstack 0 1 4` numbers the
                       targets from 1 in steps of 4
    join 0, part 0     the same along an axis that stays
    cast bfloat16      another dtype
"""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from converters.arrays import Array, Cast, Joined, Merged, Part, Split, Transposed
from converters.errors import MappingError
from converters.zarr import dtype_named

_HOLE = re.compile(r"\{([^{}]*)\}")
_MANY_TO_ONE = ("stack", "join")
_ONE_TO_MANY = ("unstack", "part")
_SHOWN = 20  # problems that one error lists in full

Filling = dict[str, str]  # what each hole of a path stands for


@dataclass(frozen=True)
class Rule:
    """One line of a table.

    Attributes:
        target: path of the result, with holes.
        source: path in the checkpoint, with holes.
        op: operations, see the module's docstring; empty for a rename.
        required: whether it is an error that no leaf matches.
    """

    target: str
    source: str
    op: str = ""
    required: bool = False

    def __str__(self) -> str:
        return f"{self.target} <- {self.source}" + (f" ({self.op})" if self.op else "")

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Matches the paths of its sources; one group a hole."""
        return _compile(self.source)

    @cached_property
    def steps(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """(name, arguments) of each operation."""
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


@dataclass(frozen=True)
class Mapped:
    """A target leaf and how it comes about."""

    target: str
    array: Array
    rule: Rule


@dataclass(frozen=True)
class RuledTree:
    """What a table makes of a tree of leaves.

    Attributes:
        leaves: targets in the order of their first source.
        ignored: (source path, reason).
    """

    leaves: tuple[Mapped, ...]
    ignored: tuple[tuple[str, str], ...]


def check_rules(rules: Iterable[Rule | Ignore]) -> None:
    """Raise `MappingError` with every fault of a table that shows without a checkpoint."""
    problems: list[str] = []
    for rule in rules:
        try:
            _ = rule.pattern
            if isinstance(rule, Rule):
                _compile(rule.target)
                _check_rule(rule)
        except (ValueError, re.error) as error:
            problems.append(f"{rule}: {error}")
    _raise(problems, "The rule table has")


def apply_rules(
    sources: Mapping[str, Array], rules: Sequence[Rule], ignores: Sequence[Ignore] = ()
) -> RuledTree:
    """Map a tree by a table; shapes are checked, no value is read.

    Args:
        sources: path -> array.
        rules: the table.
        ignores: what is left out.

    Returns:
        Every target, and what was left out.

    Raises:
        MappingError: one error that lists every source that no rule or more than one matches, every
            target that is filled twice or in part, and every shape that does not fit.
    """
    check_rules([*rules, *ignores])
    find = _finder(rules)
    problems: list[str] = []
    ignored: list[tuple[str, str]] = []
    groups: dict[tuple[Rule, str], list[tuple[Filling, str]]] = {}
    unmatched: list[str] = []
    for path in sources:
        reason = next((i.reason for i in ignores if i.pattern.fullmatch(path)), None)
        if reason is not None:
            ignored.append((path, reason))
            continue
        found = find(path)
        if not found:
            unmatched.append(path)
            continue
        if len(found) > 1:
            problems.append(f"{path}: matched by {' and by '.join(str(rule) for rule, _ in found)}")
            continue
        rule, filling = found[0]
        groups.setdefault((rule, _partial(rule.target, filling)), []).append((filling, path))
    problems += _unmatched(unmatched, rules)
    used = {rule for rule, _ in groups}
    problems += [f"{rule}: no leaf matches" for rule in rules if rule.required and rule not in used]

    leaves: list[Mapped] = []
    filled: dict[str, Rule] = {}
    for (rule, target), members in groups.items():
        try:
            made = _apply(rule, target, members, sources)
        except ValueError as error:
            some = ", ".join(path for _, path in members[:3]) + (" ..." if len(members) > 3 else "")
            problems.append(f"{target}: {error} (from {some} by {rule.op or 'rename'})")
            continue
        for name, array in made:
            if name in filled:
                problems.append(f"{name}: filled by {filled[name]} and by {rule}")
            filled[name] = rule
            leaves.append(Mapped(name, array, rule))
    problems += _clashes(filled)
    _raise(problems, "The table does not fit the checkpoint;")
    return RuledTree(tuple(leaves), tuple(ignored))


def holes(path: str) -> dict[str, tuple[str, ...] | None]:
    """Holes of a path: name -> the words it may stand for (None: numbers, or any path for `*`)."""
    return {text: tuple(text.split("|")) if "|" in text else None for text in _HOLE.findall(path)}


def fill(path: str, filling: Filling) -> str:
    """The path with its holes filled."""
    return _HOLE.sub(lambda hole: filling[hole.group(1)], path)


def nearest(name: str, names: Iterable[str], count: int = 3) -> list[str]:
    """The most similar of `names`, for messages."""
    return difflib.get_close_matches(name, list(names), count, 0.5)


def _compile(path: str) -> re.Pattern[str]:
    parts: list[str] = []
    position = 0
    seen: dict[str, int] = {}
    for hole in _HOLE.finditer(path):
        parts.append(_literal(path[position : hole.start()]))
        text = hole.group(1)
        if text in seen:
            parts.append(f"(?P=h{seen[text]})")
        else:
            seen[text] = len(seen)
            inner = "0|[1-9][0-9]*"  # a number has one spelling
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


def _match(rule: Rule, path: str) -> Filling | None:
    found = rule.pattern.fullmatch(path)
    if found is None:
        return None
    return dict(zip(holes(rule.source), found.groups(), strict=True))


def _check_rule(rule: Rule) -> None:
    """Raise `ValueError` unless holes and operations belong together."""
    extra_source = [hole for hole in holes(rule.source) if hole not in holes(rule.target)]
    extra_target = [hole for hole in holes(rule.target) if hole not in holes(rule.source)]
    many = [name for name, _ in rule.steps if name in _MANY_TO_ONE]
    one = [name for name, _ in rule.steps if name in _ONE_TO_MANY]
    if len(extra_source) != len(many):
        raise ValueError(f"holes {extra_source} of the source want one stack or join each")
    if len(extra_target) != len(one):
        raise ValueError(f"holes {extra_target} of the target want one unstack or part each")
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


def _finder(rules: Sequence[Rule]) -> Callable[[str], list[tuple[Rule, Filling]]]:
    """A look-up of the rules that match a path, in a time that does not grow with the table."""
    numbers = re.compile(r"\d+")
    index: dict[str, list[Rule]] = {}
    wild: list[Rule] = []
    for rule in rules:
        if any(hole.endswith("*") for hole in holes(rule.source)):
            wild.append(rule)
            continue
        for variant in _variants(rule.source):
            index.setdefault(numbers.sub("#", variant), []).append(rule)

    def find(path: str) -> list[tuple[Rule, Filling]]:
        near = [*index.get(numbers.sub("#", path), ()), *wild]
        found = ((rule, _match(rule, path)) for rule in near)
        return [(rule, filling) for rule, filling in found if filling is not None]

    return find


def _variants(path: str) -> list[str]:
    """The path with each choice of words, and 0 for each number."""
    hole = _HOLE.search(path)
    if hole is None:
        return [path]
    words = hole.group(1).split("|") if "|" in hole.group(1) else ["0"]
    found: list[str] = []
    for word in words:
        found += _variants(path[: hole.start()] + word + path[hole.end() :])
    return found


def _partial(target: str, filling: Filling) -> str:
    """The target with those holes filled that the source fills too."""
    return _HOLE.sub(lambda hole: filling.get(hole.group(1), hole.group(0)), target)


def _apply(
    rule: Rule, target: str, members: list[tuple[Filling, str]], sources: Mapping[str, Array]
) -> list[tuple[str, Array]]:
    """The arrays that one rule makes of the sources that belong together."""
    gathers = any(name in _MANY_TO_ONE for name, _ in rule.steps)
    if not gathers and len(members) > 1:
        raise ValueError(f"filled {len(members)} times")
    hole = next((h for h in holes(rule.source) if h not in holes(rule.target)), "")
    arrays = (
        [sources[path] for path in _in_order(members, hole)]
        if gathers
        else [sources[members[0][1]]]
    )
    targets = [target]
    for name, arguments in rule.steps:
        if name in _MANY_TO_ONE:
            arrays = [Joined(tuple(arrays), int(arguments[0]), name == "stack")]
        elif name in _ONE_TO_MANY:
            scattered = _scatter(name, tuple(map(int, arguments)), (target, arrays[0]))
            targets, arrays = map(list, zip(*scattered, strict=True))
        else:
            arrays = [_operate(name, arguments, array) for array in arrays]
    return list(zip(targets, arrays, strict=True))


def _operate(name: str, arguments: tuple[str, ...], array: Array) -> Array:
    if name == "cast":
        return Cast(array, dtype_named(arguments[0]))
    numbers = tuple(map(int, arguments))
    if name == "transpose":
        return Transposed(array, numbers)
    if name == "merge":
        return Merged(array, numbers[0])
    return Split(array, numbers[0], (numbers[1], numbers[2]))


def _scatter(
    name: str, arguments: tuple[int, ...], one: tuple[str, Array]
) -> list[tuple[str, Array]]:
    axis, first, step = arguments if len(arguments) == 3 else (arguments[0], 0, 1)
    target, array = one
    ((hole, words),) = holes(target).items()
    if axis >= len(array.shape):
        raise ValueError(f"no axis {axis} in shape {list(array.shape)}")
    size = array.shape[axis]
    if name == "part" and words is None:
        raise ValueError("part wants a hole with words, such as {gate|up}")
    count = size if words is None else len(words)
    if not size or size % count or (name == "unstack" and size != count):
        raise ValueError(f"axis {axis} of {list(array.shape)} does not give {count} parts")
    width = size // count
    names = words or tuple(str(first + step * index) for index in range(count))
    return [
        (
            fill(target, {hole: word}),
            Part(array, axis, i * width, (i + 1) * width, drop=name == "unstack"),
        )
        for i, word in enumerate(names)
    ]


def _in_order(members: list[tuple[Filling, str]], hole: str) -> list[str]:
    """Paths in the order of what fills `hole`, all of which must be there."""
    by_filling = {filling[hole]: path for filling, path in members}
    words = holes("{" + hole + "}")[hole]
    wanted = words or tuple(map(str, range(len(members))))
    missing = [word for word in wanted if word not in by_filling]
    if missing:
        raise ValueError(f"no source for {hole} = {', '.join(missing[:5])}")
    return [by_filling[word] for word in wanted]


def _unmatched(paths: Sequence[str], rules: Sequence[Rule]) -> list[str]:
    """Problem lines for sources that no rule takes, with the nearest rules' sources."""
    known = [rule.source for rule in rules]
    lines: list[str] = []
    for number, path in enumerate(paths):
        near = nearest(re.sub(r"\d+", "{i}", path), known) if number < _SHOWN else []
        hint = f"; the nearest are {', '.join(near)}" if near else ""
        lines.append(f"{path}: no rule takes this leaf{hint}")
    return lines


def _clashes(targets: Mapping[str, Rule]) -> list[str]:
    """Problem lines for targets that are a leaf and a folder at once."""
    found: list[str] = []
    for path in targets:
        parts = path.split("/")
        found += [
            f"{path}: lies below {parent}, which is a leaf itself"
            for parent in ("/".join(parts[:size]) for size in range(1, len(parts)))
            if parent in targets
        ]
    return found


def _raise(problems: Sequence[str], opening: str) -> None:
    if not problems:
        return
    shown = list(problems[:_SHOWN])
    if len(problems) > _SHOWN:
        shown.append(f"... and {len(problems) - _SHOWN} more")
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    raise MappingError("\n  ".join([f"{opening} {count}:", *shown]))
