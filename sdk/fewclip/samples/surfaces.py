"""Drawn photos of surfaces for the demo: metal, wood or fabric, whole or damaged. No real photo.

An image depends on its label and its seed alone. Light, colour, scale and grain direction vary, as
do number, position, size and strength of the defects; the material says nothing about the label.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFilter

SIZE = 128  # side of an image, pixels
PHRASES = {
    "whole": "a flawless smooth surface",
    "scratched": "a scratched surface",
    "dented": "a dented surface",
    "stained": "a stained surface",
    "cracked": "a cracked surface",
}
_FAINT = 0.25  # share of the strongest change from which a pixel counts as damaged
_FINER = 4  # lines are drawn this much larger and reduced, which makes them smooth

Plane = npt.NDArray[np.float64]  # (SIZE, SIZE)
Colour = npt.NDArray[np.float64]  # (SIZE, SIZE, 3), 0..1
Rng = np.random.Generator


def draw(label: str, seed: int | list[int]) -> PILImage.Image:
    """One RGB image, SIZE x SIZE, of a surface that is `label`, a key of `PHRASES`."""
    return draw_with_damage(label, seed)[0]


def draw_with_damage(
    label: str, seed: int | list[int]
) -> tuple[PILImage.Image, npt.NDArray[np.bool_]]:
    """`draw`, and (SIZE, SIZE) where the surface was damaged: False everywhere if it is whole."""
    # The label is part of the seed, so a damaged surface is not a whole one's twin.
    words = seed if isinstance(seed, list) else [seed]
    rng = np.random.default_rng([*words, list(PHRASES).index(label)])
    material = _MATERIALS[rng.integers(len(_MATERIALS))]
    light = rng.uniform(0, 2 * np.pi)
    whole = material(rng)
    surface = _DEFECTS[label](whole, light, rng)
    change = np.abs(surface - whole).max(axis=2)
    damage = change > max(_FAINT * float(change.max()), 1e-9)
    return _photograph(surface, light, rng), damage


def _noise(cells: float, rng: Rng, stretch: float = 1.0) -> Plane:
    """Smooth noise in -1..1, `cells` bumps across and `cells / stretch` down."""
    shape = (max(2, round(cells / stretch)), max(2, round(cells)))
    grid = rng.uniform(-1, 1, shape).astype(np.float32)
    smooth = PILImage.fromarray(grid).resize((SIZE, SIZE), PILImage.Resampling.BICUBIC)
    return np.asarray(smooth, dtype=np.float64)


def _turned(plane: Plane, angle: float) -> Plane:
    """The plane turned by `angle` degrees, enlarged so that no corner is empty."""
    big = round(SIZE * 1.45)
    image = PILImage.fromarray(plane.astype(np.float32)).resize((big, big))
    edge = (big - SIZE) // 2
    turned = image.rotate(angle, PILImage.Resampling.BILINEAR)
    return np.asarray(turned.crop((edge, edge, edge + SIZE, edge + SIZE)), dtype=np.float64)


def _axes() -> tuple[Plane, Plane]:
    """x and y, each -1..1."""
    y, x = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    return x, y


def _tinted(plane: Plane, rgb: tuple[float, float, float], rng: Rng, spread: float) -> Colour:
    tint = np.array(rgb) * rng.uniform(1 - spread, 1 + spread, 3)
    return np.asarray(plane[..., None] * tint)


# ---- materials -----------------------------------------------------------------------------------


def _metal(rng: Rng) -> Colour:
    """Brushed: fine streaks in one direction and a broad sheen."""
    streaks = _noise(3, rng, stretch=1 / 40) + 0.5 * _noise(6, rng, stretch=1 / 16)
    x, _ = _axes()
    sheen = np.exp(-((x - rng.uniform(-1, 1)) ** 2) / rng.uniform(0.2, 1.0))
    level = rng.uniform(0.42, 0.62)
    plane = level * (1 + rng.uniform(0.03, 0.08) * streaks) + rng.uniform(0.05, 0.2) * sheen
    return _tinted(_turned(plane, rng.uniform(0, 180)), (1.0, 1.0, 1.03), rng, 0.04)


def _wood(rng: Rng) -> Colour:
    """Planks: wavy year rings along one direction, and pores."""
    x, y = _axes()
    bend = rng.uniform(0.1, 0.3) * _noise(3, rng)
    rings = np.sin(2 * np.pi * (rng.uniform(2.5, 6) * (y + bend) + 0.15 * x))
    pores = _noise(12, rng, stretch=1 / 8)
    plane = rng.uniform(0.6, 0.85) * (1 + rng.uniform(0.05, 0.13) * rings + 0.05 * pores)
    angle = rng.choice([0.0, 90.0]) + rng.uniform(-15, 15)
    return _tinted(_turned(plane, angle), (0.92, 0.68, 0.45), rng, 0.1)


def _fabric(rng: Rng) -> Colour:
    """Woven: a fine grid of threads over soft folds, in any colour."""
    x, y = _axes()
    threads = SIZE / rng.uniform(3.5, 7)
    weave = np.sin(np.pi * threads * x) * np.sin(np.pi * threads * y)
    folds = _noise(2.5, rng)
    plane = 1 + rng.uniform(0.08, 0.16) * weave + rng.uniform(0.04, 0.1) * folds
    colour = rng.uniform(0.25, 0.75, 3)
    colour += 0.4 * (colour.mean() - colour)  # dyed cloth is seldom a pure colour
    plane = _turned(plane, rng.uniform(0, 90))
    return _tinted(plane, (colour[0], colour[1], colour[2]), rng, 0.05)


# ---- defects -------------------------------------------------------------------------------------


def _whole(surface: Colour, light: float, rng: Rng) -> Colour:
    return surface


def _scratched(surface: Colour, light: float, rng: Rng) -> Colour:
    """Straight, bright, shallow cuts, more or less in one direction, each with a dark flank."""
    direction = rng.uniform(0, np.pi)
    for _ in range(rng.integers(2, 7)):
        angle = direction + rng.normal(0, 0.25)
        start, length = rng.uniform(0.15, 0.85, 2), rng.uniform(0.35, 0.9)
        step = length * np.array([np.cos(angle), np.sin(angle)])
        bend = rng.normal(0, 0.03) * np.array([-step[1], step[0]])
        t = np.linspace(-0.5, 0.5, 24)[:, None]
        points = start + t * step + (1 - 4 * t**2) * bend
        width = rng.uniform(1.0, 2.2)
        cut = _stroke(points, width, taper=True)
        flank = _stroke(points + 1.3 * width / SIZE * _across(angle), width, taper=True)
        strength = rng.uniform(0.6, 1.0)
        surface = surface * (1 - 0.45 * strength * flank[..., None])
        surface = _mix(surface, np.array([0.97, 0.97, 0.95]), strength * cut)
    return surface


def _dented(surface: Colour, light: float, rng: Rng) -> Colour:
    """Round hollows: the side towards the light is in shade, the far side shines."""
    for _ in range(rng.integers(1, 4)):
        (x, y), centre = _axes(), rng.uniform(-0.6, 0.6, 2)
        angle, radius = rng.uniform(0, np.pi), rng.uniform(0.2, 0.45)
        u = (x - centre[0]) * np.cos(angle) + (y - centre[1]) * np.sin(angle)
        v = (y - centre[1]) * np.cos(angle) - (x - centre[0]) * np.sin(angle)
        r = np.hypot(u, v * rng.uniform(1.0, 1.5)) / radius
        depth = np.exp(-(r**4))  # flat floor, steep wall: a knock, not a wave
        dy, dx = np.gradient(depth)
        slope = (dx * np.cos(light) + dy * np.sin(light)) * radius * SIZE / 4
        shade = rng.uniform(0.5, 0.8) * slope - rng.uniform(0.05, 0.2) * depth
        surface = surface * np.clip(1 + shade, 0.15, 2.0)[..., None]
    return surface


def _stained(surface: Colour, light: float, rng: Rng) -> Colour:
    """Spilt coffee, ink, oil or rust: blots with a ragged outline, darkest at the rim."""
    liquids = [(0.42, 0.24, 0.1), (0.15, 0.2, 0.5), (0.16, 0.15, 0.12), (0.6, 0.25, 0.08)]
    colour = np.array(liquids[rng.integers(len(liquids))]) * rng.uniform(0.8, 1.2, 3)
    x, y = _axes()
    for _ in range(rng.integers(1, 4)):
        centre, radius = rng.uniform(-0.65, 0.65, 2), rng.uniform(0.2, 0.5)
        r = np.hypot(x - centre[0], y - centre[1]) / radius
        r = r + 0.3 * _noise(5, rng) + 0.12 * _noise(14, rng)
        inside = 1 / (1 + np.exp((r - 1) * rng.uniform(15, 40)))
        rim = np.exp(-(((r - 0.93) / 0.09) ** 2))
        cover = rng.uniform(0.5, 0.8) * inside + 0.3 * rim * inside
        # Liquid soaks in: what is below still shows through.
        surface = _mix(surface, colour * (0.5 + surface), np.clip(cover, 0, 1))
    return surface


def _cracked(surface: Colour, light: float, rng: Rng) -> Colour:
    """Dark, jagged, branching fissures that start at one point or run right across."""
    depth = np.zeros((SIZE, SIZE))
    for _ in range(rng.integers(1, 3)):
        heading = rng.uniform(0, 2 * np.pi)
        start = rng.uniform(0.25, 0.75, 2)
        for way in (heading, heading + np.pi + rng.normal(0, 0.3)):
            width = rng.uniform(1.6, 3.2)
            depth = np.maximum(depth, _fissure(start, way, width, rng.uniform(0.35, 0.7), rng))
    surface = surface * (1 - rng.uniform(0.75, 0.95) * depth[..., None])
    lit = np.roll(depth, (round(np.sin(light) * 1.6), round(np.cos(light) * 1.6)), (0, 1))
    return surface * (1 + 0.25 * np.clip(lit - depth, 0, 1)[..., None])


def _fissure(
    start: npt.NDArray[np.float64], heading: float, width: float, length: float, rng: Rng
) -> Plane:
    """A random walk with sharp turns that sends out thinner, shorter walks on its way."""
    points, branches = [start], []
    for _ in range(max(3, round(length / 0.05))):
        heading += rng.normal(0, 0.12)
        zigzag = heading + rng.choice([-1.0, 1.0]) * rng.uniform(0.2, 0.8)
        step = rng.uniform(0.03, 0.07)
        points.append(points[-1] + step * np.array([np.cos(zigzag), np.sin(zigzag)]))
        if width > 1.0 and rng.random() < 0.22:
            branches.append((points[-1], heading + rng.choice([-1.0, 1.0]) * rng.uniform(0.5, 1.1)))
    plane = _stroke(np.array(points), width, taper=True, ends_thick=True)
    for point, way in branches:
        twig = _fissure(point, way, width * 0.6, length * rng.uniform(0.3, 0.6), rng)
        plane = np.maximum(plane, twig)
    return plane


def _stroke(
    points: npt.NDArray[np.float64], width: float, *, taper: bool, ends_thick: bool = False
) -> Plane:
    """Coverage 0..1 of a line through `points` (n, 2) in 0..1, `width` pixels at its thickest.

    It thins out towards its end, and towards its start unless `ends_thick`.
    """
    side = SIZE * _FINER
    image = PILImage.new("L", (side, side))
    pen = ImageDraw.Draw(image)
    n = len(points) - 1
    for i in range(n):
        at = (i + 0.5) / n
        share = 1 - at if ends_thick else 1 - abs(2 * at - 1)
        thick = width * (0.35 + 0.65 * share) if taper else width
        ends = [tuple(p * side) for p in points[i : i + 2]]
        pen.line(ends, fill=255, width=max(1, round(thick * _FINER)))
        radius = thick * _FINER / 2
        (x, y) = ends[1]
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    return np.asarray(image.reduce(_FINER), dtype=np.float64) / 255


def _across(angle: float) -> npt.NDArray[np.float64]:
    return np.array([-np.sin(angle), np.cos(angle)])


def _mix(surface: Colour, colour: npt.NDArray[np.float64], cover: Plane) -> Colour:
    return np.asarray(surface + cover[..., None] * (colour - surface))


# ---- camera --------------------------------------------------------------------------------------


def _photograph(surface: Colour, light: float, rng: Rng) -> PILImage.Image:
    """Uneven light from `light`, exposure, white balance, a little blur and sensor noise."""
    x, y = _axes()
    fall = 1 + rng.uniform(0.05, 0.25) * (x * np.cos(light) + y * np.sin(light))
    corner = 1 - rng.uniform(0, 0.12) * (x**2 + y**2)
    seen = surface * (fall * corner * rng.uniform(0.75, 1.2))[..., None]
    seen = seen * rng.uniform(0.95, 1.05, 3)
    grain = rng.normal(0, rng.uniform(0.005, 0.02), seen.shape)
    image = PILImage.fromarray((np.clip(seen + grain, 0, 1) * 255).round().astype(np.uint8))
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.7)))


_MATERIALS: tuple[Callable[[Rng], Colour], ...] = (_metal, _wood, _fabric)
_DEFECTS: dict[str, Callable[[Colour, float, Rng], Colour]] = {
    "whole": _whole,
    "scratched": _scratched,
    "dented": _dented,
    "stained": _stained,
    "cracked": _cracked,
}
