"""Applies a rule table to a tree of leaves; shapes are checked, no values are read."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from converters.arrays import Array, Cast, Joined, Merged, Part, Split, Transposed
from converters.rules.language import (
    HOLE,
    MANY_TO_ONE,
    ONE_TO_MANY,
    SHOWN,
    Filling,
    Ignore,
    Rule,
    check_rules,
    fill,
    holes,
    nearest,
    raise_problems,
)
from converters.zarr import dtype_named


@dataclass(frozen=True)
class Mapped:
    """A target leaf, the array that computes it, and the rule it comes from."""

    target: str
    array: Array
    rule: Rule


@dataclass(frozen=True)
class RuledTree:
    """The result of applying a table to a tree of leaves.

    Attributes:
        leaves: target leaves, in the order of their first source.
        ignored: (source path, reason) of the leaves that are left out.
    """

    leaves: tuple[Mapped, ...]
    ignored: tuple[tuple[str, str], ...]


def apply_rules(
    sources: Mapping[str, Array], rules: Sequence[Rule], ignores: Sequence[Ignore] = ()
) -> RuledTree:
    """Map a tree with a rule table; shapes are checked, no values are read.

    Args:
        sources: path -> array.
        rules: the table.
        ignores: source leaves that are left out.

    Returns:
        Every target leaf, and what was left out.

    Raises:
        MappingError: lists all problems at once: sources matched by no rule or by several, targets
            filled twice or incompletely, and shapes that do not fit.
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
    raise_problems(problems, "The table does not fit the checkpoint;")
    return RuledTree(tuple(leaves), tuple(ignored))


def _match(rule: Rule, path: str) -> Filling | None:
    found = rule.pattern.fullmatch(path)
    if found is None:
        return None
    return dict(zip(holes(rule.source), found.groups(), strict=True))


def _finder(rules: Sequence[Rule]) -> Callable[[str], list[tuple[Rule, Filling]]]:
    """Make a look-up of the rules that match a path; its time does not grow with the table."""
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
    """The path with every choice of words, and with 0 in place of each number."""
    hole = HOLE.search(path)
    if hole is None:
        return [path]
    words = hole.group(1).split("|") if "|" in hole.group(1) else ["0"]
    found: list[str] = []
    for word in words:
        found += _variants(path[: hole.start()] + word + path[hole.end() :])
    return found


def _partial(target: str, filling: Filling) -> str:
    """The target with those holes filled that occur in the source too."""
    return HOLE.sub(lambda hole: filling.get(hole.group(1), hole.group(0)), target)


def _apply(
    rule: Rule, target: str, members: list[tuple[Filling, str]], sources: Mapping[str, Array]
) -> list[tuple[str, Array]]:
    """The arrays that one rule makes from the sources that it takes together."""
    gathers = any(name in MANY_TO_ONE for name, _ in rule.steps)
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
        if name in MANY_TO_ONE:
            arrays = [Joined(tuple(arrays), int(arguments[0]), name == "stack")]
        elif name in ONE_TO_MANY:
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
        raise ValueError("part needs a hole with words, such as {gate|up}")
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
    """Paths ordered by what fills `hole`; raises `ValueError` if a value is missing."""
    by_filling = {filling[hole]: path for filling, path in members}
    words = holes("{" + hole + "}")[hole]
    wanted = words or tuple(map(str, range(len(members))))
    missing = [word for word in wanted if word not in by_filling]
    if missing:
        raise ValueError(f"no source for {hole} = {', '.join(missing[:5])}")
    return [by_filling[word] for word in wanted]


def _unmatched(paths: Sequence[str], rules: Sequence[Rule]) -> list[str]:
    """Problem lines for sources that no rule takes; each names rules with similar sources."""
    known = [rule.source for rule in rules]
    lines: list[str] = []
    for number, path in enumerate(paths):
        near = nearest(re.sub(r"\d+", "{i}", path), known) if number < SHOWN else []
        hint = f"; the nearest are {', '.join(near)}" if near else ""
        lines.append(f"{path}: no rule takes this leaf{hint}")
    return lines


def _clashes(targets: Mapping[str, Rule]) -> list[str]:
    """Problem lines for targets that are both a leaf and a folder."""
    found: list[str] = []
    for path in targets:
        parts = path.split("/")
        found += [
            f"{path}: lies below {parent}, which is a leaf itself"
            for parent in ("/".join(parts[:size]) for size in range(1, len(parts)))
            if parent in targets
        ]
    return found
