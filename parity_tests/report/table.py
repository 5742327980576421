"""Prints the result of a comparison on the terminal, and writes it as JUnit XML."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from rich.console import Console
from rich.table import Table
from rich.text import Text

from parity_tests.compare import Difference, first_failure
from parity_tests.hints import Hint

COLUMNS = ("pass", "name", "shape", "max abs", "max rel", "allowed", "ULPs", "verdict")
WIDTH = 400  # columns if there is no terminal, so that lines are not wrapped


@dataclass(frozen=True)
class Report:
    """The result of a comparison.

    Attributes:
        out, against: the checkpoint and the recording that were compared.
        origin: origin of the recording.
        differences: one entry per value, in the order of computation.
        hints: causes that explain the first failure.
        notes: sentences about the settings.
        settings: dotted key -> (value, origin), for model and learner.
    """

    out: str
    against: str
    origin: str
    differences: Sequence[Difference]
    hints: Sequence[Hint] = ()
    notes: Sequence[str] = field(default_factory=tuple)
    settings: Mapping[str, tuple[Any, str]] = field(default_factory=dict)

    @property
    def first(self) -> Difference | None:
        """The first failure; None if all agrees."""
        return first_failure(self.differences)

    @property
    def passes(self) -> bool:
        """Whether everything that could be compared agrees, and something could."""
        return self.first is None and any(d.verdict == "ok" for d in self.differences)

    def origins(self) -> str:
        """How many settings have each origin; '' if no origins are known."""
        count = Counter(origin for _, origin in self.settings.values() if origin)
        return ", ".join(f"{number} {origin}" for origin, number in count.most_common())

    def summary(self) -> str:
        """The result in one or two sentences."""
        count = Counter(difference.verdict for difference in self.differences)
        ok = count.pop("ok", 0)
        rest = ", ".join(f"{number} {verdict}" for verdict, number in sorted(count.items()))
        if self.first is None:
            text = f"{ok} values agree with {self.origin}" + (f"; {rest}" if rest else "")
        else:
            text = f"{self.where()}; {ok} values agree, {rest}"
        worst = [d for d in self.differences if d.verdict == "ok" and d.kind == "activations"]
        if worst:
            text += f" (largest difference of an activation: {max(d.relative for d in worst):.1e})"
        return text

    def where(self) -> str:
        """Describe the first failure."""
        first = self.first
        assert first is not None
        place = f" in pass {first.section}" if first.section else ""
        layer = f", layer {first.layer}" if first.layer is not None else ""
        if first.verdict != "DIFFERS":
            return f"first failure at {first.name}{place}{layer}: {first.note}"
        note = f": {first.note}" if first.note else ""
        return (
            f"first differs at {first.name}{place}{layer}, by {first.relative:.1e} of its largest "
            f"magnitude ({first.allowed:.0e} allowed){note}"
        )


def number(value: float, digits: str = ".1e") -> str:
    """A number in few characters."""
    if value == 0:
        return "0"
    return "inf" if math.isinf(value) else format(value, digits)


def cells(difference: Difference) -> tuple[str, ...]:
    """The row of a difference, see `COLUMNS`."""
    measured = difference.verdict in ("ok", "DIFFERS")
    numbers = (
        number(difference.absolute),
        number(difference.relative),
        number(difference.allowed, ".0e"),
        number(difference.ulps, ".0f" if difference.ulps < 1e5 else ".0e"),
    )
    verdict = difference.verdict + (f": {difference.note}" if difference.note else "")
    shape = "x".join(map(str, difference.shape)) or "-"
    blank = ("",) * len(numbers)
    return (difference.section, difference.name, shape, *(numbers if measured else blank), verdict)


def print_report(report: Report, console: Console) -> None:
    """Print the table, hints and the summary; the first failure is highlighted."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in COLUMNS:
        right = column in ("max abs", "max rel", "allowed", "ULPs")
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    first = report.first
    for difference in report.differences:
        style = "bold red" if difference is first else "red" if difference.fails else None
        row = cells(difference)
        if difference is first:
            row = (*row[:-1], f"{row[-1]}  <- first")
        table.add_row(*map(Text, row), style=style)
    console.print(table)
    if origins := report.origins():
        console.print(Text(f"settings: {origins}"), soft_wrap=True)
    for note in report.notes:
        console.print(Text(f"note: {note}"), soft_wrap=True)
    for hint in report.hints:
        console.print(
            Text(f"hint: {hint.cause}. Try: {hint.advice}", style="yellow"), soft_wrap=True
        )
    if first is not None and not report.hints:
        console.print(Text("hint: none of the usual causes explains it"))
    style = "bold green" if report.passes else "bold red"
    console.print(Text(report.summary(), style=style), soft_wrap=True)


def report_json(report: Report) -> dict[str, Any]:
    """The result for programs; numbers are formatted as in the table."""
    return {
        "out": report.out,
        "against": report.against,
        "origin": report.origin,
        "agrees": report.passes,
        "summary": report.summary(),
        "first": None if report.first is None else report.first.name,
        "hints": [{"cause": hint.cause, "advice": hint.advice} for hint in report.hints],
        "notes": list(report.notes),
        "settings": {
            key: {"value": value, "from": origin}
            for key, (value, origin) in report.settings.items()
        },
        "values": [
            dict(zip(COLUMNS, cells(difference), strict=True)) for difference in report.differences
        ],
    }


def write_junit(report: Report, path: Path) -> None:
    """Write one test case per recorded value; the first failure contains the hints."""
    differences = report.differences
    suite = ElementTree.Element(
        "testsuite",
        name="parity-check",
        tests=str(len(differences)),
        failures=str(sum(difference.fails for difference in differences)),
        skipped=str(sum(d.verdict in ("ignored", "not run") for d in differences)),
        errors="0",
    )
    for difference in differences:
        case = ElementTree.SubElement(
            suite,
            "testcase",
            classname=".".join(filter(None, ("parity", difference.kind, difference.section))),
            name=difference.name,
        )
        if difference.fails:
            text = "\n".join(f"{c}: {v}" for c, v in zip(COLUMNS, cells(difference), strict=True))
            if difference is report.first:
                text += "".join(f"\nhint: {h.cause}. Try: {h.advice}" for h in report.hints)
            message = difference.note or f"differs by {difference.relative:.1e}"
            failure = ElementTree.SubElement(case, "failure", message=message)
            failure.text = text
        elif difference.verdict in ("ignored", "not run"):
            ElementTree.SubElement(case, "skipped", message=difference.note)
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    path.parent.mkdir(parents=True, exist_ok=True)
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)
