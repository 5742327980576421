"""Draws charts as self-contained SVG."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

COLORS = ("#2b6cb0", "#dd6b20", "#2f855a", "#805ad5", "#b83280")
WIDTH, HEIGHT = 640, 260
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 12, 42


class Bar(NamedTuple):
    """A value of a group with its interval; None if unknown."""

    value: float | None
    low: float | None = None
    high: float | None = None


def bars(groups: Sequence[str], series: Sequence[tuple[str, Sequence[Bar]]]) -> str:
    """Grouped bars with their intervals.

    Args:
        groups: names of the groups along the axis.
        series: (name, one bar per group).
    """
    every = [x for _, row in series for bar in row for x in bar if x is not None]
    top = max([*every, 0.0]) or 1.0
    step = (WIDTH - LEFT - RIGHT) / max(len(groups), 1)
    width = 0.8 * step / max(len(series), 1)
    parts = [_axis(top)]
    for number, (name, row) in enumerate(series):
        color = COLORS[number % len(COLORS)]
        for place, bar in enumerate(row):
            if bar.value is None:
                continue
            x = LEFT + place * step + 0.1 * step + number * width
            height = _height(bar.value, top)
            told = escape(f"{name}, {groups[place]}: {bar.value:.4g}")
            parts.append(
                f'<rect x="{x:.1f}" y="{_bottom() - height:.1f}" width="{width * 0.92:.1f}"'
                f' height="{height:.1f}" fill="{color}"><title>{told}</title></rect>'
            )
            if bar.low is not None and bar.high is not None:
                middle = x + width * 0.46
                low, high = (_bottom() - _height(edge, top) for edge in (bar.low, bar.high))
                parts.append(_line([(middle, low), (middle, high)], "#1a202c"))
    for place, name in enumerate(groups):
        parts.append(_text(LEFT + (place + 0.5) * step, _bottom() + 16, name))
    for number, (name, _) in enumerate(series):
        x = LEFT + number * (WIDTH - LEFT) / max(len(series), 1)
        color = COLORS[number % len(COLORS)]
        parts.append(f'<rect x="{x:.1f}" y="{HEIGHT - 14}" width="10" height="10" fill="{color}"/>')
        parts.append(_text(x + 14, HEIGHT - 5, name, "start"))
    return _svg(parts)


def curve(values: Sequence[float], across: str, up: str) -> str:
    """A curve on the unit square, with the diagonal for comparison.

    Args:
        values: heights in [0, 1], at equal distances.
        across, up: labels of the axes.
    """
    wide = WIDTH - LEFT - RIGHT
    points = [
        (LEFT + wide * place / max(len(values) - 1, 1), _bottom() - _height(value, 1.0))
        for place, value in enumerate(values)
    ]
    even = [(LEFT, _bottom()), (LEFT + wide, _bottom() - _height(1.0, 1.0))]
    return _svg([
        _axis(1.0), _line(even, "#a0aec0"), _line(points, COLORS[0], 2),
        _text(LEFT + wide / 2, HEIGHT - 20, across), _text(LEFT + 6, TOP + 10, up, "start"),
    ])  # fmt: skip


def _axis(top: float) -> str:
    parts = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = _bottom() - _height(share * top, top)
        parts.append(_line([(LEFT, y), (WIDTH - RIGHT, y)], "#e2e8f0"))
        parts.append(_text(LEFT - 6, y + 4, f"{share * top:.3g}", "end"))
    return "".join(parts)


def _bottom() -> float:
    return HEIGHT - BOTTOM


def _height(value: float, top: float) -> float:
    return max(value, 0.0) / top * (HEIGHT - TOP - BOTTOM)


def _line(points: Sequence[tuple[float, float]], color: str, width: float = 1) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="{width}"/>'


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
        f"{''.join(parts)}</svg>"
    )
