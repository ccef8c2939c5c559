"""Charts as inline SVG, out of what the checks recorded: classes for colour, no style, every mark a link.

A chart is decoration to a screen reader and to the keyboard: beside each one stands a table that says the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from markupsafe import Markup

from service.console.words import day, moment, number

__all__ = ["Cell", "Line", "Mark", "Point", "heat", "quality", "spark"]

WIDTHS = {"wide": 1180, "middle": 700, "narrow": 328}
"""A wide chart shrunk to a telephone could not be read: each is drawn for all, and the style sheet shows one."""

Scale = Callable[[datetime], float]
"""Where a moment stands."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """Realised quality of one window."""

    at: datetime
    value: float
    href: str
    kind: str
    """Colour of the check's verdict."""
    words: str


@dataclass(frozen=True, kw_only=True)
class Line:
    """What the champion of a stretch of time was expected to reach."""

    since: datetime
    until: datetime
    value: float


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A change of champion."""

    at: datetime
    version: int
    kind: str
    href: str
    words: str


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One feature in one window."""

    level: int | None
    """0 (as in the reference) to 5 (far beyond its threshold); None: not evaluated."""
    words: str


def quality(points: Sequence[Point], lines: Sequence[Line], marks: Sequence[Mark], *, metric: str) -> Markup:
    """Return the realised metric over time, with what was expected of each champion and the changes of champion."""
    if not points:
        return Markup("")
    return _each(lambda width: _quality(width, points, lines, marks, metric))


def _quality(width: int, points: Sequence[Point], lines: Sequence[Line], marks: Sequence[Mark], metric: str) -> Markup:
    height, left, right, top, foot = 250, 46, 14, 30, 26
    first, last = points[0].at, points[-1].at
    room = (last - first) / 40 or timedelta(hours=12)
    first, last = first - room, last + room
    values = [p.value for p in points] + [line.value for line in lines]
    ticks = _ticks(min(values), max(values))
    low, high = ticks[0], ticks[-1]

    def x(at: datetime) -> float:
        share = (at - first) / (last - first)
        return round(left + min(max(share, 0.0), 1.0) * (width - left - right), 1)

    def y(value: float) -> float:
        return round(top + (high - value) / ((high - low) or 1.0) * (height - top - foot), 1)

    parts = [Markup('<text class="unit" x="{}" y="12">{}</text>').format(4, metric)]
    for tick in ticks:
        parts.append(
            Markup('<line class="rule" x1="{}" x2="{}" y1="{y}" y2="{y}"/>').format(left, width - right, y=y(tick))
        )
        parts.append(Markup('<text class="end" x="{}" y="{}">{}</text>').format(left - 6, y(tick) + 4, number(tick, 3)))
    parts += _days(first + room, last - room, x, height - 8, many=7 if width > 1000 else 5 if width > 500 else 3)
    for line in lines:
        parts.append(
            Markup('<line class="expected" x1="{}" x2="{}" y1="{y}" y2="{y}"/>').format(
                x(line.since), x(line.until), y=y(line.value)
            )
        )
    parts += _marks([mark for mark in marks if first <= mark.at <= last], x, top, height - foot)
    steps = " ".join(f"{'L' if place else 'M'}{x(p.at)} {y(p.value)}" for place, p in enumerate(points))
    parts.append(Markup('<path class="curve" d="{}"/>').format(steps))
    for p in points:
        parts.append(
            Markup(
                '<a href="{}" tabindex="-1"><circle class="dot {}" cx="{}" cy="{}" r="4"><title>{}</title></circle></a>'
            ).format(p.href, p.kind, x(p.at), y(p.value), p.words)
        )
    return _svg(width, height, parts)


def _marks(marks: Sequence[Mark], x: Scale, top: float, foot: float) -> list[Markup]:
    parts, free = [], -100.0
    for mark in marks:
        at = x(mark.at)
        name = f"v{mark.version}"
        # Names that would stand on each other are left to the line's title.
        shown = Markup('<text class="middle" x="{}" y="{}">{}</text>').format(at, top - 8, name)
        if at - free < 26:
            shown = Markup("")
        else:
            free = at
        parts.append(
            Markup(
                '<a href="{}" tabindex="-1" class="mark {}"><title>{}</title>'
                '<line x1="{x}" x2="{x}" y1="{}" y2="{}"/>{}</a>'
            ).format(mark.href, mark.kind, mark.words, top - 2, foot, shown, x=at)
        )
    return parts


def heat(names: Sequence[str], windows: Sequence[tuple[datetime, str, str]], cells: Sequence[Sequence[Cell]]) -> Markup:
    """Return features against time, each cell coloured by how far the feature has moved.

    Parameters
    ----------
    names
        Features, from top to bottom.
    windows
        End, address and verdict of each check, the oldest first.
    cells
        For each feature, one cell a window.
    """
    if not names or not windows:
        return Markup("")

    def drawn(width: int) -> Markup:
        many = 44 if width > 500 else 16
        shown = [row[-many:] for row in cells]
        return _heat(width, names, windows[-many:], shown)

    return _each(drawn)


def _heat(
    width: int, names: Sequence[str], windows: Sequence[tuple[datetime, str, str]], cells: Sequence[Sequence[Cell]]
) -> Markup:
    left, size, foot = (150 if width > 500 else 96), 20, 24
    letters = 20 if width > 500 else 12
    step = min((width - left) / max(len(windows), 1), 44.0)
    height = size * len(names) + foot
    parts = []
    for row, name in enumerate(names):
        cut = name if len(name) <= letters else f"{name[: letters - 1]}…"
        parts.append(
            Markup('<text class="end" x="{}" y="{}">{}<title>{}</title></text>').format(
                left - 8, row * size + 14, cut, name
            )
        )
    for place, (_, href, verdict) in enumerate(windows):
        x = round(left + place * step, 1)
        column = [
            Markup('<rect class="heat {}" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>').format(
                "none" if cells[row][place].level is None else f"h{cells[row][place].level}",
                x, row * size, round(step - 2, 1), size - 2, cells[row][place].words,
            )
            for row in range(len(names))
        ]  # fmt: skip
        parts.append(
            Markup('<a href="{}" tabindex="-1" class="{}">{}</a>').format(href, verdict, Markup("").join(column))
        )
    ends = [0, len(windows) - 1] if len(windows) > 1 else [0]
    for end in ends:
        anchor = "start" if end == 0 else "end"
        at_x = left + end * step + (0 if end == 0 else step - 2)
        parts.append(
            Markup('<text class="{}" x="{}" y="{}">{}</text>').format(
                anchor, round(at_x, 1), height - 6, day(windows[end][0])
            )
        )
    return _svg(width, height, parts)


def spark(values: Sequence[float]) -> Markup:
    """Return a line without axes, the newest value marked."""
    if len(values) < 2:
        return Markup("")
    low, high = min(values), max(values)
    reach = (high - low) or 1.0
    places = [
        (round(2 + place / (len(values) - 1) * 108, 1), round(26 - (value - low) / reach * 22, 1))
        for place, value in enumerate(values)
    ]
    steps = " ".join(f"{'L' if place else 'M'}{x} {y}" for place, (x, y) in enumerate(places))
    end_x, end_y = places[-1]
    return Markup(
        '<svg class="spark" viewBox="0 0 116 30" width="116" height="30" aria-hidden="true">'
        '<path class="curve" d="{}"/><circle class="dot" cx="{}" cy="{}" r="3"/></svg>'
    ).format(steps, end_x, end_y)


def _days(first: datetime, last: datetime, x: Scale, y: float, *, many: int) -> list[Markup]:
    if first == last:
        return [Markup('<text class="middle" x="{}" y="{}">{}</text>').format(x(first), y, moment(first))]
    parts = []
    for place in range(many):
        at = first + (last - first) * place / (many - 1)
        anchor = "start" if place == 0 else "end" if place == many - 1 else "middle"
        parts.append(Markup('<text class="{}" x="{}" y="{}">{}</text>').format(anchor, x(at), y, day(at)))
    return parts


def _ticks(low: float, high: float) -> list[float]:
    """Return four to seven round numbers that span the values."""
    reach = (high - low) or abs(high) * 0.1 or 1.0
    rough = reach / 4
    power = 10.0 ** len(str(int(rough))) if rough >= 1 else 1.0
    while power > rough:
        power /= 10
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough)
    tick = (low // step) * step
    found = [tick]
    while found[-1] < high - step * 1e-9:
        tick += step
        found.append(round(tick, 10))
    return found if len(found) > 1 else [found[0], found[0] + step]


def _each(drawn: Callable[[int], Markup]) -> Markup:
    return Markup("").join(
        Markup('<div class="chart {}">{}</div>').format(name, drawn(width)) for name, width in WIDTHS.items()
    )


def _svg(width: int, height: float, parts: Sequence[Markup]) -> Markup:
    return Markup('<svg viewBox="0 0 {} {}" aria-hidden="true">{}</svg>').format(width, height, Markup("").join(parts))
