"""A picture of a tuning job: its objective over its trials, and its trials as lines through their parameters.

In: the trials of a `trainingOutput`. Out: a `Drawing` of lines, dots and texts, which `render` writes as SVG, HTML or
PNG by the name of the file. Standard library only, but for PNG.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from enginehouse.core.errors import FailedPrecondition, InvalidArgument

WIDTH, HEIGHT = 960, 760
_LEFT, _RIGHT = 80.0, 920.0
_INK, _PALE, _BEST = "#1f2933", "#cbd2d9", "#c2410c"
_WORST_RGB, _BEST_RGB = (168, 190, 220), (194, 65, 12)

Trial = Mapping[str, Any]


@dataclass(frozen=True)
class Line:
    points: Sequence[tuple[float, float]]
    color: str = _PALE
    width: float = 1.0
    title: str = ""


@dataclass(frozen=True)
class Dot:
    x: float
    y: float
    radius: float
    color: str
    title: str = ""


@dataclass(frozen=True)
class Text:
    """`anchor` is start, middle or end."""

    x: float
    y: float
    text: str
    size: int = 13
    anchor: str = "start"


@dataclass
class Drawing:
    """What is to be drawn, in this order."""

    shapes: list[Line | Dot | Text] = field(default_factory=list)


def draw(job: Mapping[str, Any]) -> Drawing:
    """The picture of a tuning job as the API shows it.

    Raises:
        FailedPrecondition: no trial of it has the metric yet.
    """
    output, spec = job["trainingOutput"], job["trainingInput"]["hyperparameters"]
    trials = sorted((each for each in output.get("trials", ()) if _objective(each) is not None), key=_number)
    if not trials:
        raise FailedPrecondition(f"No trial of {job['jobId']} has a metric yet, so there is nothing to draw.")
    drawing, maximize = Drawing(), spec.get("goal") != "MINIMIZE"
    tag = output.get("hyperparameterMetricTag", "")
    drawing.shapes.append(Text(WIDTH / 2, 28, f"{job['jobId']}: {tag} of {len(trials)} trials", 17, "middle"))
    _objective_panel(drawing, trials, tag, maximize=maximize)
    _parameter_panel(drawing, trials, spec["params"], tag, maximize=maximize)
    return drawing


def render(drawing: Drawing, file_name: str) -> bytes:
    """The picture in the format that the file's name ends with.

    Raises:
        InvalidArgument: none of ours.
        FailedPrecondition: a PNG without Pillow.
    """
    match file_name.rpartition(".")[2].lower():
        case "svg":
            return _svg(drawing).encode()
        case "html" | "htm":
            page = f'<!doctype html><meta charset="utf-8"><title>Trials</title><body>{_svg(drawing)}</body>\n'
            return page.encode()
        case "png":
            return _png(drawing)
        case other:
            raise InvalidArgument(f"{other!r} is no format of pictures here: give a .svg, .html or .png file.")


def _number(trial: Trial) -> int:
    return int(trial["trialId"])


def _objective(trial: Trial) -> float | None:
    value = trial.get("finalMetric", {}).get("objectiveValue")
    return float(value) if value is not None and math.isfinite(float(value)) else None


def _title(trial: Trial, tag: str) -> str:
    parameters = ", ".join(f"{name}={value}" for name, value in trial["hyperparameters"].items())
    return f"Trial {trial['trialId']}: {tag} {_objective(trial):.6g}; {parameters}"


def _place(value: float, low: float, high: float, start: float, end: float) -> float:
    share = (value - low) / (high - low) if high > low else 0.5
    return start + share * (end - start)


def _objective_panel(drawing: Drawing, trials: Sequence[Trial], tag: str, *, maximize: bool) -> None:
    top, bottom = 60.0, 320.0
    values = [_objective(trial) or 0.0 for trial in trials]
    numbers = [_number(trial) for trial in trials]
    low, high = min(values), max(values)
    for share in (0.0, 0.5, 1.0):
        y = bottom + share * (top - bottom)
        drawing.shapes.append(Line([(_LEFT, y), (_RIGHT, y)]))
        drawing.shapes.append(Text(_LEFT - 8, y + 4, f"{low + share * (high - low):.4g}", anchor="end"))
    best: list[tuple[float, float]] = []
    so_far = values[0]
    places = [
        (_place(number, numbers[0], numbers[-1], _LEFT + 20, _RIGHT - 20), _place(value, low, high, bottom, top))
        for number, value in zip(numbers, values, strict=True)
    ]
    for (x, _y), value in zip(places, values, strict=True):
        better = max(so_far, value) if maximize else min(so_far, value)
        if best and better != so_far:
            best.append((x, best[-1][1]))
        so_far = better
        best.append((x, _place(so_far, low, high, bottom, top)))
    drawing.shapes.append(Line(best, _BEST, 2.0, "best so far"))
    every = -(-len(trials) // 20)
    for at, (trial, (x, y)) in enumerate(zip(trials, places, strict=True)):
        drawing.shapes.append(Dot(x, y, 4, _INK, _title(trial, tag)))
        if at % every == 0:
            drawing.shapes.append(Text(x, bottom + 20, trial["trialId"], anchor="middle"))
    drawing.shapes.append(Text(WIDTH / 2, bottom + 42, "trial (the line is the best so far)", anchor="middle"))


def _parameter_panel(
    drawing: Drawing, trials: Sequence[Trial], params: Sequence[Mapping[str, Any]], tag: str, *, maximize: bool
) -> None:
    top, bottom = 440.0, 710.0
    values = [_objective(trial) or 0.0 for trial in trials]
    axes = [_Axis(param) for param in params] + [_Axis({"parameterName": tag, "values": values})]
    places = [_place(at, 0, len(axes) - 1, _LEFT + 20, _RIGHT - 20) for at in range(len(axes))]
    low, high = min(values), max(values)
    for x, axis in zip(places, axes, strict=True):
        drawing.shapes.append(Line([(x, top), (x, bottom)], _PALE, 2.0))
        drawing.shapes.append(Text(x, top - 14, axis.name, anchor="middle"))
    # The best ones last, on top of the others.
    for value, trial in sorted(zip(values, trials, strict=True), key=lambda pair: pair[0], reverse=not maximize):
        texts = [trial["hyperparameters"].get(axis.name, "") for axis in axes[:-1]] + [str(value)]
        shares = [axis.share(text) for axis, text in zip(axes, texts, strict=True)]
        points = [(x, bottom + share * (top - bottom)) for x, share in zip(places, shares, strict=True)]
        quality = _place(value, low, high, 0, 1) if maximize else _place(value, low, high, 1, 0)
        drawing.shapes.append(Line(points, _shade(quality), 1 + 1.5 * quality, _title(trial, tag)))
    for x, axis in zip(places, axes, strict=True):
        for share, label in axis.labels():
            drawing.shapes.append(Text(x - 8, bottom + share * (top - bottom) + 4, label, 11, "end"))
    drawing.shapes.append(
        Text(WIDTH / 2, bottom + 34, "each line is a trial, the better the redder", anchor="middle")
    )


class _Axis:
    """One axis of parallel coordinates, in the parameter's own scale."""

    def __init__(self, param: Mapping[str, Any]) -> None:
        self.name: str = param["parameterName"]
        self._kinds: list[str] = list(param.get("categoricalValues", ()))
        values = [float(each) for each in param.get("values") or param.get("discreteValues") or ()]
        self._low = float(param.get("minValue", min(values, default=0.0)))
        self._high = float(param.get("maxValue", max(values, default=1.0)))
        self._scale = param.get("scaleType", "NONE") if self._low > 0 else "NONE"

    def share(self, text: str) -> float:
        """From 0 at the bottom to 1 at the top."""
        if self._kinds:
            return _place(self._kinds.index(text), 0, len(self._kinds) - 1, 0, 1) if text in self._kinds else 0.5
        value, low, high = float(text), self._low, self._high
        if self._scale == "UNIT_LOG_SCALE":
            return _place(math.log(value), math.log(low), math.log(high), 0, 1)
        if self._scale == "UNIT_REVERSE_LOG_SCALE":
            return 1 - _place(math.log(max(low, low + high - value)), math.log(low), math.log(high), 0, 1)
        return _place(value, low, high, 0, 1)

    def labels(self) -> list[tuple[float, str]]:
        if self._kinds:
            return [(self.share(kind), kind) for kind in self._kinds]
        return [(0.0, f"{self._low:.4g}"), (1.0, f"{self._high:.4g}")]


def _shade(quality: float) -> str:
    mixed = (round(a + (b - a) * quality) for a, b in zip(_WORST_RGB, _BEST_RGB, strict=True))
    return "#" + "".join(f"{part:02x}" for part in mixed)


def _svg(drawing: Drawing) -> str:
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'font-family="sans-serif" fill="{_INK}"><rect width="100%" height="100%" fill="#ffffff"/>'
    ]
    for shape in drawing.shapes:
        match shape:
            case Text(x, y, text, size, anchor):
                parts.append(
                    f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}">'
                    f"{html.escape(text)}</text>"
                )
            case Dot(x, y, radius, color, title):
                parts.append(
                    f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{color}">'
                    f"<title>{html.escape(title)}</title></circle>"
                )
            case Line(points, color, width, title):
                path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
                parts.append(
                    f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="{width:.1f}">'
                    f"<title>{html.escape(title)}</title></polyline>"
                )
    return "\n".join([*parts, "</svg>"])


def _png(drawing: Drawing) -> bytes:
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError:
        raise FailedPrecondition(
            "A PNG needs Pillow: pip install 'enginehouse[plot]'. A .svg or .html file needs nothing."
        ) from None
    factor = 2
    image = Image.new("RGB", (WIDTH * factor, HEIGHT * factor), "#ffffff")
    canvas = ImageDraw.Draw(image)
    anchors = {"start": "ls", "middle": "ms", "end": "rs"}
    for shape in drawing.shapes:
        match shape:
            case Text(x, y, text, size, anchor):
                font = ImageFont.load_default(size * factor)
                canvas.text((x * factor, y * factor), text, fill=_INK, font=font, anchor=anchors[anchor])
            case Dot(x, y, radius, color, _title):
                box = (x - radius, y - radius, x + radius, y + radius)
                canvas.ellipse(tuple(each * factor for each in box), fill=color)
            case Line(points, color, width, _title):
                path = [(x * factor, y * factor) for x, y in points]
                canvas.line(path, fill=color, width=max(1, round(width * factor)), joint="curve")
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
