"""Builds the page of a report from its JSON alone."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from efficientids_flax.evaluation.metrics.lists import METRICS
from efficientids_flax.evaluation.report.drawings import Bar, bars, curve

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a202c; max-width: 60rem; margin: 2rem auto;
       padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; margin: .5rem 0; }
th, td { padding: .2rem .8rem .2rem 0; text-align: right; border-bottom: 1px solid #e2e8f0; }
th:first-child, td:first-child { text-align: left; }
td small { color: #718096; }
svg { max-width: 42rem; width: 100%; font-size: 11px; fill: #4a5568; }
.notes { background: #fffaf0; padding: .5rem 1rem; }
"""


def page(report: Mapping[str, Any]) -> str:
    """Build the HTML page.

    Args:
        report: result of `described`.
    """
    cutoffs = report["cutoffs"]
    prefix = "" if report["ranking"]["candidates"] == "full catalogue" else "sampled_"
    largest = max(cutoffs)
    told = f"{report['intervals']['level']:.0%}"
    parts = [
        "<h1>Evaluation of recommendations</h1>",
        _facts(report),
        _notes(report["notes"]),
        f"<h2>Metrics</h2><p>Means, with {told} intervals of a bootstrap over users.</p>",
        _metrics(report["metrics"], cutoffs, prefix),
        bars(
            [f"@{k}" for k in cutoffs],
            [
                (
                    prefix + name,
                    [_bar(report["metrics"], f"{prefix}{name}_at_{k}") for k in cutoffs],
                )
                for name in METRICS
            ],
        ),
        "<h2>Parts</h2>",
        "<p>Of items: the held-out items of one kind alone. Of histories: users by how many items"
        " they had before what is asked for.</p>",
        _segments(report, prefix, largest),
        bars(
            [part["name"] for part in report["segments"]],
            [
                (name, [_bar(part["metrics"], name) for part in report["segments"]])
                for name in (f"{prefix}{metric}_at_{largest}" for metric in ("recall", "ndcg"))
            ],
        ),
        "<h2>Where the first hit stands</h2>",
        bars(
            [str(place) for place in range(1, len(report["first_hits"]) + 1)],
            [("lists", [Bar(float(count)) for count in report["first_hits"]])],
        ),
        "<h2>How evenly items are shown</h2>",
        _table(
            ["", *(f"@{k}" for k in cutoffs)],
            [
                [name, *(_told(report["catalogue"][f"{prefix}{name}_at_{k}"]) for k in cutoffs)]
                for name in ("coverage", "gini", "average_popularity")
                if f"{prefix}{name}_at_{largest}" in report["catalogue"]
            ],
        ),
        curve(
            [0.0 if value is None else value for value in report["lorenz_curve"]],
            "share of the catalogue, the least shown items first",
            f"share of the places of all lists @{largest}",
        ),
    ]
    body = "\n".join(filter(None, parts))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>Evaluation</title><style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _facts(report: Mapping[str, Any]) -> str:
    counts = {name: report[name] for name in ("users", "questions", "held_out")}
    told = {**report["about"], **counts, **report["ranking"]}
    return _table(None, [[name.replace("_", " "), str(value)] for name, value in told.items()])


def _notes(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    return f'<ul class="notes">{"".join(f"<li>{escape(note)}</li>" for note in notes)}</ul>'


def _metrics(metrics: Mapping[str, Any], cutoffs: Sequence[int], prefix: str) -> str:
    rows = []
    for name in METRICS:
        cells = []
        for k in cutoffs:
            one = metrics[f"{prefix}{name}_at_{k}"]
            cells.append((_told(one["value"]), f"{_told(one['low'])} to {_told(one['high'])}"))
        rows.append([prefix + name, *cells])
    return _table(["", *(f"@{k}" for k in cutoffs)], rows)


def _segments(report: Mapping[str, Any], prefix: str, largest: int) -> str:
    names = [f"{prefix}{name}_at_{largest}" for name in METRICS]
    rows = []
    whole = {**report, "name": "all"}
    for part in (whole, *report["segments"]):
        values = [(_told(part["metrics"][name]["value"]),
                   f"{_told(part['metrics'][name]['low'])} to"
                   f" {_told(part['metrics'][name]['high'])}") for name in names]  # fmt: skip
        rows.append([part["name"], str(part["users"]), str(part["held_out"]), *values])
    return _table(["", "users", "held out", *names], rows)


def _table(head: Sequence[str] | None, rows: Sequence[Sequence[str | tuple[str, str]]]) -> str:
    """An HTML table; cells are texts, or pairs of a text and a smaller one below it."""

    def cell(text: str | tuple[str, str]) -> str:
        if isinstance(text, str):
            return f"<td>{escape(text)}</td>"
        return f"<td>{escape(text[0])}<br><small>{escape(text[1])}</small></td>"

    top = "".join(f"<th>{escape(text)}</th>" for text in head or ())
    body = "".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in rows)
    return f"<table>{f'<tr>{top}</tr>' if top else ''}{body}</table>"


def _bar(metrics: Mapping[str, Any], name: str) -> Bar:
    one = metrics[name]
    return Bar(one["value"], one["low"], one["high"])


def _told(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}" if abs(value) < 100 else f"{value:.1f}"
