"""Places where the drawn PASCAL scenes happen: landscapes, shores, streets and rooms.

Unlike the patchworks behind the other scenes, these have a ground on which objects stand, natural colours and low
contrast.  Lengths are in image heights, x from 0 to the aspect ratio, y down from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from deepmask.data import textures
from deepmask.data.canvas import Canvas, Surfaces, relief
from deepmask.data.objects import MIN_FEATURE, blob, joined
from deepmask.data.shapes import box, limb

Range = tuple[float, float]
LEVEL = np.pi / 2  # direction of a texture that is drawn out sideways


class Sheet(NamedTuple):
    """One flat piece of scenery."""

    outline: np.ndarray  # (n, 2) x, y
    tones: np.ndarray  # (2, 3) hue, saturation, value of its two colours
    texture: int = textures.FLAT
    feature: float = 0.1  # of its texture
    turn: float = 0.0  # of its texture, in radians
    fall: float = 0.0  # how much darker its lower edge is than its middle
    bulge: float = 0.0  # how much darker its edges are, as of a round thing


class Backdrop(NamedTuple):
    """A place: what lies behind all objects, what may hide them, and where the ground begins."""

    behind: list[Sheet]
    in_front: list[Sheet]
    horizon: float  # y of the farthest place where an object can stand
    sky: bool  # whether birds can fly


def draw_backdrop(rng: np.random.Generator, aspect: float) -> Backdrop:
    """One of the places."""
    places = (_landscape, _shore, _street, _room)
    return places[rng.choice(len(places), p=(0.3, 0.15, 0.25, 0.3))](rng, aspect)


def paint_sheets(canvas: Canvas, rng: np.random.Generator, sheets: list[Sheet]) -> None:
    """Paint sheets one after another, scaled to the height of the canvas."""
    if not sheets:
        return
    height = canvas.labels.shape[0]
    outlines = [sheet.outline * height for sheet in sheets]
    low = np.stack([outline.min(0) for outline in outlines])
    high = np.stack([outline.max(0) for outline in outlines])
    extents = np.maximum((high - low) / 2, 1)
    colour = textures.rgb(*np.moveaxis(np.stack([sheet.tones for sheet in sheets]), -1, 0))
    slopes = np.array([(0.0, -sheet.fall) for sheet in sheets])
    bulges = np.array([(sheet.bulge, sheet.bulge) for sheet in sheets])
    surfaces = Surfaces(
        dark=colour[:, 0],
        bright=colour[:, 1],
        texture=np.array([sheet.texture for sheet in sheets]),
        feature=np.maximum([sheet.feature * height for sheet in sheets], MIN_FEATURE),
        turn=np.array([sheet.turn for sheet in sheets]),
        shift=rng.uniform(0, textures.SIDE, (len(sheets), 2)),
        light=relief((low + high) / 2, np.eye(2) / extents[:, :, None], slopes, bulges),
    )
    canvas.paint(*joined(outlines), surfaces)


def palette(sheets: list[Sheet]) -> np.ndarray:
    """(n, 2, 3) tones of the sheets, of which objects may take some."""
    return np.stack([sheet.tones for sheet in sheets])


def _tones(rng: np.random.Generator, hue: Range, saturation: Range, value: Range, contrast: Range) -> np.ndarray:
    """(2, 3) two related tones; `contrast` is how much the second is brighter."""
    first = rng.uniform(*hue), rng.uniform(*saturation), rng.uniform(*value)
    shift = rng.normal(0, 0.015), rng.normal(0, 0.04), rng.uniform(*contrast)
    return np.array([first, np.add(first, shift)])


def _sky(rng: np.random.Generator, aspect: float, bottom: float) -> Sheet:
    """Blue, overcast, or at dusk; lighter towards the horizon."""
    hues, saturation = [((0.54, 0.62), (0.2, 0.55)), ((0.5, 0.65), (0.02, 0.12)), ((0.03, 0.11), (0.2, 0.45))][
        rng.choice(3, p=(0.5, 0.3, 0.2))
    ]
    tones = _tones(rng, hues, saturation, (0.6, 0.8), (0.08, 0.3))
    tones[1, 1] *= 0.5  # clouds are white
    return Sheet(
        _span(aspect, 0, bottom), tones, int(rng.integers(1, 4)), rng.uniform(0.12, 0.35), LEVEL, rng.uniform(-0.3, 0)
    )


def _landscape(rng: np.random.Generator, aspect: float) -> Backdrop:
    horizon = rng.uniform(0.3, 0.6)
    sheets, count = [_sky(rng, aspect, horizon + 0.1)], rng.integers(1, 4)
    for i in range(count):  # ridges, the farther ones pale and blue
        near = (i + 1) / count
        top = horizon - 0.22 * (1 - near) - rng.uniform(0.02, 0.12)
        tones = _tones(rng, (0.45 - 0.2 * near, 0.55 - 0.25 * near), (0.1, 0.3), (0.5 - 0.2 * near,) * 2, (0.05, 0.2))
        sheets.append(Sheet(_ridge(rng, aspect, top, horizon + 0.05), tones, textures.CLOUDS, 0.06))
    dry = rng.uniform() < 0.35
    tones = _tones(rng, (0.09, 0.13) if dry else (0.2, 0.32), (0.25, 0.55), (0.3, 0.5), (0.1, 0.3))
    texture = int(rng.choice([textures.GRAIN, textures.FUR, textures.CLOUDS]))
    sheets.append(Sheet(_span(aspect, horizon, 1), tones, texture, rng.uniform(0.06, 0.2), 0, rng.uniform(0, 0.2)))
    if rng.uniform() < 0.4:  # a path
        x, narrow, broad = rng.uniform(0, aspect, 2), rng.uniform(0.01, 0.06), rng.uniform(0.15, 0.5)
        outline = np.array(
            [(x[0] - narrow, horizon), (x[0] + narrow, horizon), (x[1] + broad, 1.01), (x[1] - broad, 1.01)]
        )
        tones = _tones(rng, (0.07, 0.13), (0.1, 0.35), (0.4, 0.65), (0.05, 0.2))
        sheets.append(Sheet(outline, tones, textures.GRAIN, 0.1))
    for x in np.sort(rng.uniform(0, aspect, rng.integers(0, 7))):
        sheets += _tree(rng, x, horizon + rng.uniform(0, 0.08), rng.uniform(0.12, 0.5))
    bushes = [_bush(rng, rng.uniform(0, aspect), rng.uniform(0.95, 1.08), rng.uniform(0.06, 0.2)) for _ in range(4)]
    return Backdrop(sheets, bushes[: rng.choice(4, p=(0.5, 0.25, 0.15, 0.1))], horizon + 0.05, True)


def _shore(rng: np.random.Generator, aspect: float) -> Backdrop:
    horizon = rng.uniform(0.25, 0.5)
    strand = horizon + rng.uniform(0.08, 0.3)
    sea = _tones(rng, (0.48, 0.6), (0.25, 0.6), (0.3, 0.55), (0.1, 0.3))
    sand = _tones(rng, (0.08, 0.12), (0.15, 0.4), (0.55, 0.75), (0.05, 0.2))
    sheets = [
        _sky(rng, aspect, horizon),
        Sheet(_span(aspect, horizon, 1), sea, textures.FUR, rng.uniform(0.05, 0.15), LEVEL, -0.1),
        Sheet(_ridge(rng, aspect, strand, 1, 0.03), sand, textures.GRAIN, rng.uniform(0.08, 0.2), 0, 0.1),
    ]
    stones = []
    for _ in range(rng.integers(0, 6)):
        size = rng.uniform(0.03, 0.12)
        x, y = rng.uniform(0, aspect), rng.uniform(strand, 1.05)
        tones = _tones(rng, (0.05, 0.15), (0.02, 0.2), (0.3, 0.5), (0.1, 0.3))
        stones.append(Sheet(blob(rng, size, 0.2) + (x, y), tones, textures.CLOUDS, 0.05, bulge=0.25))
    near = [stone.outline[:, 1].mean() >= 0.9 for stone in stones]
    far = [stone for stone, is_near in zip(stones, near, strict=True) if not is_near]
    return Backdrop(sheets + far, [stone for stone, is_near in zip(stones, near, strict=True) if is_near], strand, True)


def _street(rng: np.random.Generator, aspect: float) -> Backdrop:
    ground = rng.uniform(0.5, 0.7)
    sheets, x = [_sky(rng, aspect, ground)], rng.uniform(-0.4, 0)
    while x < aspect:
        width, top = rng.uniform(0.35, 0.9), rng.uniform(-0.1, 0.35)
        sheets += _facade(rng, x, top, width, ground)
        x += width + (rng.uniform(0.05, 0.3) if rng.uniform() < 0.25 else 0)
    pavement = ground + rng.uniform(0.06, 0.18)
    grey = _tones(rng, (0.05, 0.65), (0.0, 0.08), (0.5, 0.65), (0.05, 0.15))
    road = _tones(rng, (0.05, 0.65), (0.0, 0.08), (0.25, 0.4), (0.05, 0.2))
    sheets += [
        Sheet(_span(aspect, ground, pavement), grey, int(rng.choice([textures.GRID, textures.GRAIN])), 0.07),
        Sheet(_span(aspect, pavement, 1), road, textures.GRAIN, 0.09, fall=0.1),
        Sheet(_span(aspect, pavement, pavement + 0.012), grey * (1, 1, 0.7)),
    ]
    if rng.uniform() < 0.6:  # lane marks
        y, step = (pavement + 1) / 2 + rng.uniform(-0.05, 0.05), rng.uniform(0.3, 0.6)
        white = np.array([(0.12, 0.05, 0.8), (0.12, 0.05, 0.9)])
        sheets += [Sheet(box(x, y, step * 0.55, 0.025, 0.95), white) for x in np.arange(0, aspect, step)]
    front = []
    if rng.uniform() < 0.4:  # a lamp post
        x, top = rng.uniform(0.05, 0.95) * aspect, rng.uniform(-0.1, 0.4)
        metal = _tones(rng, (0.3, 0.65), (0.05, 0.3), (0.15, 0.4), (0.05, 0.15))
        front.append(Sheet(limb(x, top, x, 1.02, rng.uniform(0.02, 0.035), 0.05), metal, bulge=0.15))
    return Backdrop(sheets, front, ground + 0.05, rng.uniform() < 0.3)


def _room(rng: np.random.Generator, aspect: float) -> Backdrop:
    floor = rng.uniform(0.5, 0.75)
    wall = _tones(rng, (0, 1), (0.03, 0.3), (0.55, 0.8), (0.02, 0.1))
    paper = int(rng.choice([textures.FLAT, textures.CLOUDS, textures.SOFT_STRIPES, textures.BRICKS]))
    wood = _tones(rng, (0.05, 0.1), (0.3, 0.55), (0.35, 0.6), (0.08, 0.2))
    carpet = _tones(rng, (0, 1), (0.1, 0.4), (0.35, 0.6), (0.05, 0.15))
    ground, texture, turn = [(wood, textures.WOOD, LEVEL), (carpet, textures.GRAIN, 0.0), (carpet, textures.GRID, 0.0)][
        rng.choice(3, p=(0.5, 0.3, 0.2))
    ]
    sheets = [
        Sheet(_span(aspect, 0, floor), wall, paper, rng.uniform(0.08, 0.16), fall=rng.uniform(-0.1, 0.2)),
        Sheet(_span(aspect, floor - 0.035, floor), wood if rng.uniform() < 0.5 else wall * (1, 0.5, 1.2)),
        Sheet(_span(aspect, floor, 1), ground, texture, rng.uniform(0.07, 0.15), turn, 0.12),
    ]
    if rng.uniform() < 0.5:  # the corner of the room, and another wall in the shade
        left, x = rng.uniform() < 0.5, rng.uniform(0.1, 0.3) * aspect
        side = np.array([(-1, -1), (x, -1), (x, floor), (-1, floor + (1 + x) * 0.6)])
        outline = side if left else (aspect, 0) + side * (-1, 1)
        sheets.append(Sheet(outline, wall * (1, 1, 0.8), paper, 0.12))
    for x in rng.permutation(np.linspace(0.15, 0.85, 4))[: rng.integers(0, 4)] * aspect:
        y, width, height = rng.uniform(0.12, 0.3), rng.uniform(0.12, 0.35), rng.uniform(0.18, 0.36)
        sheets += _window(rng, x, y, width, height) if rng.uniform() < 0.4 else _picture(rng, x, y, width, height)
    if rng.uniform() < 0.4:  # a rug
        x, y = rng.uniform(0.2, 0.8) * aspect, rng.uniform(floor + 0.1, 0.95)
        tones = _tones(rng, (0, 1), (0.2, 0.5), (0.3, 0.55), (0.1, 0.25))
        sheets.append(Sheet(box(x, y, rng.uniform(0.6, 1.1), 0.16, 0.8), tones, textures.TARTAN, 0.08))
    front = []
    if rng.uniform() < 0.35:  # the edge of a table near the camera
        x, y, width = rng.uniform(0, aspect), rng.uniform(0.86, 0.97), rng.uniform(0.3, 0.8)
        front = [
            Sheet(box(x, y + 0.2, width * 0.95, 0.4), wood * (1, 1, 0.75), textures.WOOD, 0.1),
            Sheet(box(x, y, width, 0.05, 0.94), wood, textures.WOOD, 0.1, LEVEL),
        ]
    return Backdrop(sheets, front, floor + 0.05, False)


# --- things ---------------------------------------------------------------------------------------------------------


def _span(aspect: float, top: float, bottom: float) -> np.ndarray:
    """The whole width between two heights; beyond the image where it touches the border."""
    top, bottom = top if top > 0 else -0.01, bottom if bottom < 1 else 1.01
    return np.array([(-0.01, top), (aspect + 0.01, top), (aspect + 0.01, bottom), (-0.01, bottom)])


def _ridge(rng: np.random.Generator, aspect: float, top: float, bottom: float, swing: float = 0.1) -> np.ndarray:
    """An area below an uneven line."""
    x = np.linspace(-0.1, aspect + 0.1, 40)
    waves = [rng.uniform(-1, 1) * np.sin(k * 2 * x + rng.uniform(0, 2 * np.pi)) / k for k in (1, 2, 3, 5, 9)]
    line = top + swing * sum(waves)
    return np.concatenate([np.stack([x, line], 1), [(aspect + 0.1, bottom + 0.01), (-0.1, bottom + 0.01)]])


def _tree(rng: np.random.Generator, x: float, y: float, size: float) -> list[Sheet]:
    bark = _tones(rng, (0.05, 0.1), (0.2, 0.45), (0.2, 0.35), (0.05, 0.15))
    return [
        Sheet(limb(x, y - size * 0.6, x, y, size * 0.07, size * 0.1), bark, textures.WOOD, 0.04),
        _bush(rng, x, y - size * 0.7, size * 0.35),
    ]


def _bush(rng: np.random.Generator, x: float, y: float, radius: float) -> Sheet:
    tones = _tones(rng, (0.2, 0.38), (0.3, 0.6), (0.15, 0.35), (0.1, 0.25))
    return Sheet(blob(rng, radius, 0.3) + (x, y), tones, textures.CLOUDS, 0.05, bulge=0.15)


def _facade(rng: np.random.Generator, x: float, top: float, width: float, ground: float) -> list[Sheet]:
    """A house front with rows of windows."""
    tones = _tones(rng, (0.0, 0.14), (0.05, 0.45), (0.4, 0.7), (0.04, 0.15))
    texture = int(rng.choice([textures.FLAT, textures.BRICKS, textures.CLOUDS]))
    sheets = [Sheet(box(x + width / 2, (top + ground) / 2, width, ground - top), tones, texture, 0.05, fall=0.08)]
    glass = _tones(rng, (0.5, 0.65), (0.05, 0.3), (0.15, 0.45), (0.05, 0.2))
    columns, pitch = rng.integers(2, 5), rng.uniform(0.16, 0.24)
    wide, high = width / columns * rng.uniform(0.35, 0.65), pitch * rng.uniform(0.45, 0.65)
    for y in np.arange(top + pitch * 0.7, ground - pitch * 0.5, pitch):
        for i in range(columns):
            centre = x + width * (i + 0.5) / columns
            sheets.append(Sheet(box(centre, y, wide, high), glass, fall=0.2))
    return sheets


def _window(rng: np.random.Generator, x: float, y: float, width: float, height: float) -> list[Sheet]:
    frame = np.array([(0.1, 0.05, 0.85), (0.1, 0.05, 0.9)]) * (1, 1, rng.uniform(0.6, 1))
    day = _tones(rng, (0.5, 0.62), (0.05, 0.3), (0.7, 0.85), (0.05, 0.15))
    panes = [box(x + s * width * 0.23, y, width * 0.4, height * 0.9) for s in (-1, 1)]
    return [Sheet(box(x, y, width, height), frame), *(Sheet(pane, day, textures.CLOUDS, 0.2) for pane in panes)]


def _picture(rng: np.random.Generator, x: float, y: float, width: float, height: float) -> list[Sheet]:
    frame = _tones(rng, (0.05, 0.12), (0.1, 0.5), (0.15, 0.5), (0.05, 0.1))
    motif = _tones(rng, (0, 1), (0.1, 0.4), (0.35, 0.65), (0.1, 0.25))
    inner = box(x, y, width * 0.84, height * 0.84)
    return [Sheet(box(x, y, width, height), frame), Sheet(inner, motif, textures.CLOUDS, rng.uniform(0.08, 0.2))]


_PLACE = Callable[[np.random.Generator, float], Backdrop]
