"""Plots as inline SVG, out of stored figures: nothing in them but numbers and escaped words."""

import html
from collections.abc import Sequence
from typing import Any

from service.api.page import Html, number

__all__ = ["interval", "intervals", "observed", "reliability"]

W, H, PAD = 360, 300, 40


def reliability(curves: Sequence[tuple[str, str, dict[str, Any]]]) -> Html:
    """Return reliability curves: said on the x axis, come true on the y axis; each is a name, a class and figures."""
    place = _Place(0.0, 1.0, 0.0, 1.0)
    parts = [place.frame("said", "came true"), place.line(0, 0, 1, 1, "ideal")]
    for _, style, curve in curves:
        points = curve["points"]
        parts.append(place.path([(p["said"], p["came"]) for p in points], f"{style} curve"))
        for p in points:
            parts += [place.line(p["said"], p["low"], p["said"], p["high"], f"{style} dim")]
            parts.append(
                place.dot(p["said"], p["came"], 3.5, style, f"said {p['said']:.3f}, came {p['came']:.3f}, n {p['n']}")
            )
    return _drawing("Reliability curve", parts, curves)


def observed(curves: Sequence[tuple[str, str, dict[str, Any]]]) -> Html:
    """Return predicted against observed: rows as dim dots, means of equally large bins as a line with 10 to 90 %."""
    values = [v for _, _, c in curves for row in c.get("rows", []) for v in row]
    values += [p[key] for _, _, c in curves for p in c["points"] for key in ("said", "came", "low", "high")]
    low, high = min(values), max(values)
    room = (high - low) * 0.03 or 1.0
    place = _Place(low - room, high + room, low - room, high + room)
    parts = [place.frame("predicted", "observed"), place.line(low, low, high, high, "ideal")]
    for _, style, curve in curves[:1]:
        parts += [place.dot(said, came, 1.5, f"{style} dim", "") for said, came in curve.get("rows", [])]
    for _, style, curve in curves:
        points = curve["points"]
        parts.append(place.path([(p["said"], p["came"]) for p in points], f"{style} curve"))
        for p in points:
            parts.append(place.line(p["said"], p["low"], p["said"], p["high"], f"{style} dim"))
            words = f"predicted {number(p['said'])}, observed {number(p['came'])}, n {p['n']}"
            parts.append(place.dot(p["said"], p["came"], 3.5, style, words))
    return _drawing("Predicted against observed", parts, curves)


def interval(low: float, value: float, high: float, *, marks: Sequence[tuple[str, float]]) -> Html:
    """Return one value with its interval on a line, and marks to compare it with."""
    ends = [low, high, value, *(at for _, at in marks)]
    least, most = min(ends), max(ends)
    room = (most - least) * 0.08 or abs(value) * 0.1 or 1.0
    place = _Place(least - room, most + room, 0, 1, height=96)
    y = 40.0
    parts = [
        place.line(least - room, 0.5, most + room, 0.5, "axis", y=y),
        place.line(low, 0.5, high, 0.5, "a", y=y, width=6),
    ]
    parts.append(
        _text(place.x(low), y + 24, number(low), "middle") + _text(place.x(high), y + 40, number(high), "middle")
    )
    for name, at in marks:
        parts.append(f'<line class="bad" x1="{place.x(at):.1f}" x2="{place.x(at):.1f}" y1="{y - 14}" y2="{y + 14}"/>')
        parts.append(_text(place.x(at), y - 18, f"{name} {number(at)}", "middle"))
    parts.append(f'<circle class="a" cx="{place.x(value):.1f}" cy="{y}" r="6"><title>{number(value)}</title></circle>')
    return _svg("The value with its interval", 96, parts)


def intervals(lines: Sequence[tuple[str, float, float, float, str]], *, marks: Sequence[tuple[str, float]]) -> Html:
    """Return named values with their intervals below each other: name, low, value, high and class."""
    ends = [v for _, *three, _ in lines for v in three] + [at for _, at in marks]
    least, most = min(ends), max(ends)
    room = (most - least) * 0.05 or 1.0
    height = 40 * len(lines) + 44
    place = _Place(least - room, most + room, 0, 1, height=height)
    parts = []
    for name, at in marks:
        x = place.x(at)
        parts.append(f'<line class="ideal" x1="{x:.1f}" x2="{x:.1f}" y1="18" y2="{height - 22}"/>')
        parts.append(_text(x, height - 6 if name else 12, f"{name} {number(at)}".strip(), "middle"))
    for row, (name, low, value, high, style) in enumerate(lines):
        y = 40.0 + 40 * row
        shown = name if len(name) <= 44 else f"{name[:43]}…"
        parts.append(_text(PAD / 4, y - 8, shown, "start"))
        parts.append(place.line(low, 0, high, 0, style, y=y, width=4))
        words = f"{number(value)}, interval {number(low)} to {number(high)}"
        parts.append(
            f'<circle class="{style}" cx="{place.x(value):.1f}" cy="{y}" r="4"><title>{_esc(words)}</title></circle>'
        )
    return _svg("Gains with their intervals", height, parts)


class _Place:
    """Where values stand in a drawing."""

    def __init__(self, left: float, right: float, bottom: float, top: float, *, height: int = H) -> None:
        self._left, self._right, self._bottom, self._top, self._height = left, right, bottom, top, height

    def x(self, value: float) -> float:
        share = (value - self._left) / ((self._right - self._left) or 1.0)
        return PAD + share * (W - PAD - 12)

    def y(self, value: float) -> float:
        share = (value - self._bottom) / ((self._top - self._bottom) or 1.0)
        return self._height - PAD - share * (self._height - PAD - 12)

    def line(
        self, x1: float, y1: float, x2: float, y2: float, style: str, *, y: float | None = None, width: int = 1
    ) -> str:
        top, bottom = (self.y(y1), self.y(y2)) if y is None else (y, y)
        return (
            f'<line class="{style}" x1="{self.x(x1):.1f}" y1="{top:.1f}" x2="{self.x(x2):.1f}" y2="{bottom:.1f}" '
            f'stroke-width="{width}"/>'
        )

    def path(self, points: Sequence[tuple[float, float]], style: str) -> str:
        steps = " ".join(
            f"{'L' if place else 'M'}{self.x(x):.1f} {self.y(y):.1f}" for place, (x, y) in enumerate(points)
        )
        return f'<path class="{style}" d="{steps}"/>'

    def dot(self, x: float, y: float, radius: float, style: str, words: str) -> str:
        title = f"<title>{_esc(words)}</title>" if words else ""
        return f'<circle class="{style}" cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" r="{radius}">{title}</circle>'

    def frame(self, across: str, up: str) -> str:
        left, bottom = self.x(self._left), self.y(self._bottom)
        ends = [
            _text(left, bottom + 16, number(self._left, 3), "start"),
            _text(self.x(self._right), bottom + 16, number(self._right, 3), "end"),
            _text((left + W) / 2, bottom + 32, across, "middle"),
            _text(left - 6, bottom, number(self._bottom, 3), "end"),
            _text(left - 6, self.y(self._top) + 10, number(self._top, 3), "end"),
            f'<text x="12" y="{self._height / 2:.0f}" text-anchor="middle" '
            f'transform="rotate(-90 12 {self._height / 2:.0f})">{_esc(up)}</text>',
        ]
        axes = self.line(self._left, self._bottom, self._right, self._bottom, "axis")
        return axes + self.line(self._left, self._bottom, self._left, self._top, "axis") + "".join(ends)


def _drawing(title: str, parts: Sequence[str], curves: Sequence[tuple[str, str, dict[str, Any]]]) -> Html:
    keys = [
        f'<circle class="{style}" cx="{PAD + 20 + 110 * place}" cy="16" r="4"/>'
        + _text(PAD + 30 + 110 * place, 20, name, "start")
        for place, (name, style, _) in enumerate(curves)
    ]
    return _svg(title, H, [*parts, *keys])


def _svg(title: str, height: int, parts: Sequence[str]) -> Html:
    return Html(
        f'<svg viewBox="0 0 {W} {height}" role="img" aria-label="{_esc(title)}">'
        f"<title>{_esc(title)}</title>{''.join(parts)}</svg>"
    )


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{_esc(words)}</text>'


def _esc(words: str) -> str:
    return html.escape(words)
