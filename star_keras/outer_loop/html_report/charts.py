"""Line charts by iteration: coordinates of lines, points and ticks."""

import dataclasses
from collections.abc import Mapping, Sequence

WIDTH, HEIGHT = 640, 300
# "100%" stands left of the lines, in larger letters on a phone.
LEFT, RIGHT = 64, 14
_TOP, _BOTTOM = 12, 40
_MOST_TICKS = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """A line of a chart.

    Attributes:
        label: Name of the line.
        points: `(x, y, iteration, share)` of each point.
    """

    label: str
    points: Sequence[tuple[float, float, int, float]]

    @property
    def path(self) -> str:
        """The `points` of an SVG polyline."""
        return " ".join(f"{x},{y}" for x, y, *_ in self.points)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chart:
    """Shares from 0 to 1 by iteration.

    Attributes:
        title: What it shows.
        lines: Lines of the chart; the last line is drawn on top.
        x_ticks: `(x, iteration)` of each tick.
        y_ticks: `(y, share)` of each tick.
    """

    title: str
    lines: Sequence[Line]
    x_ticks: Sequence[tuple[float, int]]
    y_ticks: Sequence[tuple[float, float]]


def make_chart(title: str, lines: Mapping[str, Mapping[int, float]]) -> Chart | None:
    """A chart of shares; `None` without shares.

    Args:
        title: What it shows.
        lines: The share of each iteration, by label.
    """
    lines = {label: values for label, values in lines.items() if values}
    if not lines:
        return None
    iterations = sorted({i for values in lines.values() for i in values})
    first, last = iterations[0], iterations[-1]

    def x(iteration):
        inner = WIDTH - LEFT - RIGHT
        share = (iteration - first) / (last - first) if last > first else 0.5
        return round(LEFT + inner * share, 1)

    def y(share):
        return round(HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * share, 1)

    step = -(-(last - first + 1) // _MOST_TICKS)
    return Chart(
        title=title,
        lines=[
            Line(
                label=label,
                points=[(x(i), y(v), i, v) for i, v in sorted(values.items())],
            )
            for label, values in lines.items()
        ],
        x_ticks=[(x(i), i) for i in range(first, last + 1, step)],
        y_ticks=[(y(k / 4), k / 4) for k in range(5)],
    )
