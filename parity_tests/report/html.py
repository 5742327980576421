"""Writes the result of a comparison as one HTML file: a table, and a plot of the error by depth."""

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

from efficientids_flax.settings import ASSUMED, setting_text
from parity_tests.compare import Difference
from parity_tests.report.table import COLUMNS, Report, cells

WIDTH, HEIGHT, LEFT, BOTTOM = 1040, 320, 56, 34  # of the plot, in pixels
LEAST, MOST = -9, 1  # decades that the plot shows; values beyond are drawn at its edges
STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #6b7280; --line: #d5d9e0; --bad: #c62828;
  --good: #2e7d32; --band: #00000008; --paper: #fff; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --soft: #9aa3af; --line: #3a4048;
  --bad: #ff7b72; --good: #56d364; --band: #ffffff0a; --paper: #16191d; } }
body { font: 14px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  margin: 2rem auto; max-width: 1100px; padding: 0 1rem; }
h1 { font-size: 1.3rem; } .bad { color: var(--bad); } .good { color: var(--good); }
.soft { color: var(--soft); } .scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 12.5px; }
th { text-align: left; position: sticky; top: 0; background: var(--paper); }
th, td { padding: 2px 8px 2px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td:nth-child(2) { font-family: ui-monospace, monospace; overflow-wrap: anywhere; }
td.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
tr.first td { border-top: 2px solid var(--bad); border-bottom: 2px solid var(--bad);
  font-weight: 600; } tr.fails td { color: var(--bad); }
svg { max-width: 100%; height: auto; } svg text { font-size: 11px; fill: var(--soft); }
"""


def write_html(report: Report, path: Path) -> None:
    """Write the report to a file that needs no other files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(report), encoding="utf-8")


def page(report: Report) -> str:
    """The HTML of a report."""
    tone = "good" if report.passes else "bad"
    about = f"{report.out} against {report.against} ({report.origin})"
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        '<meta name=viewport content="width=device-width">',
        f"<title>parity-check: {'agrees' if report.passes else 'differs'}</title>",
        f"<style>{STYLE}</style>",
        f'<h1 class="{tone}">{escape(report.summary())}</h1>',
        f'<p class="soft">{escape(about)}</p>',
    ]
    for hint in report.hints:
        parts.append(f"<p><b>{escape(hint.cause)}.</b> Try: <code>{escape(hint.advice)}</code></p>")
    if report.notes:
        notes = "".join(f"<li>{escape(note)}" for note in report.notes)
        title = f"Notes ({len(report.notes)})"
        parts.append(f"<details><summary>{title}</summary><ul>{notes}</ul></details>")
    if report.settings:
        parts.append(_settings(report))
    for section in dict.fromkeys(d.section for d in report.differences):
        drawn = [d for d in report.differences if d.section == section and _drawn(d)]
        if len(drawn) > 1:
            parts.append(f"<h2>Error by depth{f', {escape(section)}' if section else ''}</h2>")
            parts.append(f'<div class="scroll">{plot(drawn, report.first)}</div>')
    parts.append(f'<div class="scroll">{_table(report)}</div></html>')
    return "\n".join(parts)


def _settings(report: Report) -> str:
    """A table of every setting with its origin; assumed ones are highlighted."""
    rows = []
    for key, (value, origin) in report.settings.items():
        kind = ' class="fails"' if origin == ASSUMED else ""
        name, _, text = setting_text(key, value).partition("=")
        rows.append(f"<tr{kind}><td>{escape(name)}<td>{escape(text)}<td>{escape(origin)}")
    count = report.origins()
    title = f"Settings ({escape(count)})" if count else "Settings"
    head = "<th>setting<th>value<th>origin"
    table = f"<table><thead><tr>{head}<tbody>{''.join(rows)}</table>"
    return f"<details><summary>{title}</summary>{table}</details>"


def plot(drawn: Sequence[Difference], first: Difference | None) -> str:
    """Plot the relative error of each value on a log scale, in the order of computation, as SVG."""
    wide, high = WIDTH - LEFT - 8, HEIGHT - BOTTOM - 8

    def across(place: float) -> float:
        return LEFT + wide * (place + 0.5) / len(drawn)

    def up(value: float) -> float:
        decade = math.log10(value) if value > 0 and math.isfinite(value) else LEAST
        decade = MOST if value == math.inf else min(max(decade, LEAST), MOST)
        return 8 + high * (MOST - decade) / (MOST - LEAST)

    parts = []
    for decade in range(LEAST, MOST + 1):
        y = up(10.0**decade)
        parts.append(_svg("line", x1=LEFT, x2=WIDTH - 8, y1=y, y2=y, stroke="var(--line)"))
        parts.append(_svg("text", f"1e{decade}", x=LEFT - 6, y=y + 4, text_anchor="end"))
    for layer, (start, stop) in _bands(drawn).items():
        left, right = across(start - 0.5), across(stop + 0.5)
        band = {"x": left, "y": 8, "width": right - left, "height": high}
        parts.append(_svg("rect", **band, fill="var(--band)") if layer % 2 == 0 else "")
        middle, below = (left + right) / 2, HEIGHT - 14
        parts.append(_svg("text", f"layer {layer}", x=middle, y=below, text_anchor="middle"))
    allowed = " ".join(f"{across(i):.1f},{up(d.allowed):.1f}" for i, d in enumerate(drawn))
    dashes = {"stroke": "var(--soft)", "stroke_dasharray": "4 3"}
    parts.append(_svg("polyline", points=allowed, fill="none", **dashes))
    for place, difference in enumerate(drawn):
        x, y = across(place), up(difference.relative)
        if difference is first:
            parts.append(_svg("line", x1=x, x2=x, y1=8, y2=8 + high, stroke="var(--bad)"))
        parts.append(
            _svg(
                "circle",
                _svg("title", escape(f"{difference.name}: {difference.relative:.1e}")),
                cx=x,
                cy=y,
                r=5 if difference is first else 2.5,
                fill="var(--bad)" if difference.fails else "var(--good)",
            )
        )
    size = {"viewBox": f"0 0 {WIDTH} {HEIGHT}", "width": WIDTH, "role": "img"}
    return _svg("svg", "".join(parts), **size)


def _svg(element: str, inner: str = "", **attributes: object) -> str:
    """An SVG element; floats are shortened, and `_` in attribute names becomes `-`."""
    texts = {
        name.replace("_", "-"): f"{value:.1f}" if isinstance(value, float) else str(value)
        for name, value in attributes.items()
    }
    inside = "".join(f' {name}="{escape(text)}"' for name, text in texts.items())
    return f"<{element}{inside}>{inner}</{element}>"


def _bands(drawn: Sequence[Difference]) -> dict[int, tuple[int, int]]:
    """Layer -> its first and last index in the plot."""
    found: dict[int, tuple[int, int]] = {}
    for place, difference in enumerate(drawn):
        if difference.layer is not None:
            start = found.get(difference.layer, (place, place))[0]
            found[difference.layer] = (start, place)
    return found


def _drawn(difference: Difference) -> bool:
    measured = difference.verdict in ("ok", "DIFFERS")
    return measured and difference.kind in ("activations", "gradients")


def _table(report: Report) -> str:
    head = "".join(f"<th>{column}" for column in COLUMNS)
    rows = []
    for difference in report.differences:
        kind = "first" if difference is report.first else ""
        kind = f"{kind} fails".strip() if difference.fails else kind
        found = cells(difference)
        inner = "".join(
            f'<td class="n">{escape(cell)}' if 3 <= place <= 6 else f"<td>{escape(cell)}"
            for place, cell in enumerate(found)
        )
        rows.append(f'<tr class="{kind}">{inner}' if kind else f"<tr>{inner}")
    return f"<table><thead><tr>{head}<tbody>{''.join(rows)}</table>"
