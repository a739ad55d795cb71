"""Painting single things: an object of a category, a fragment of clutter, a background region.

Everything in a scene takes some of its colours from the scene's palette.  That camouflages objects, and it denies
a segmentation by colour alone.
"""

from __future__ import annotations

import numpy as np

from deepmask.data import textures
from deepmask.data.canvas import Canvas, Surfaces, relief
from deepmask.data.categories import FAMILIES, ROLES, Style
from deepmask.data.shapes import DETAIL, DIALS, Dials, box, ellipse, limb

JITTER = 0.07  # largest relative deviation of an instance's sizes from its category's
CAMOUFLAGE = 0.2  # chance that a role of an object takes a tone of the palette
CLUTTER_SHARED, BACKGROUND_SHARED = 0.5, 0.6  # the same for clutter and background
MIN_FEATURE = 2.6  # pixels; finer texture would be noise


class Figure:
    """An instance of a category before it has a place: outlines around (0, 0) whose bounding box has area 1."""

    def __init__(self, style: Style, rng: np.random.Generator) -> None:
        jitter = rng.uniform(-JITTER, JITTER, DIALS)
        parts = FAMILIES[style.family](Dials(style.dials, jitter))
        self.style = style
        self.roles = np.array([part.role for part in parts])
        self.bulge = np.array([part.form for part in parts])
        points = np.concatenate([part.outline for part in parts])
        self.starts = np.cumsum([0] + [len(part.outline) for part in parts])
        low = np.minimum.reduceat(points, self.starts[:-1])
        high = np.maximum.reduceat(points, self.starts[:-1])
        self.angle = rng.normal(0, style.rotation)
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        turn = np.array([[cos, -sin], [sin, cos]])
        stretch = style.aspect * rng.uniform(0.93, 1.07) * (1 if rng.uniform() < 0.5 else -1)  # or mirrored
        frame = turn * (stretch, 1.0)  # columns: where the figure's x and y directions point
        points = points @ frame.T
        corner, opposite = points.min(0), points.max(0)
        scale = 1 / np.sqrt(np.prod(opposite - corner))
        middle = (corner + opposite) / 2
        self.size = (opposite - corner) * scale  # (2,) width, height
        self.points = (points - middle) * scale  # corners of all parts, one part after another
        self.centres = ((low + high) / 2 @ frame.T - middle) * scale
        self.axes = np.linalg.inv(frame * scale) / np.maximum((high - low) / 2, 0.02)[:, :, None]
        self.directions = turn.T  # unit vectors of the figure's axes

    def paint(
        self,
        canvas: Canvas,
        rng: np.random.Generator,
        palette: np.ndarray,
        sun: np.ndarray,
        centre: tuple[float, float],
        side: float,
    ) -> int:
        """Paint with the bounding box at `centre`, side**2 pixels large; returns the first label.

        palette: (n, 2, 3) tones of the scene; sun: (2,) slope of the brightness.
        """
        style, k = self.style, len(self.roles)
        tones = style.tones.copy()
        tones[:, :, 0] += rng.normal(0, style.hue_spread) + rng.normal(0, style.hue_spread / 3, (ROLES, 1))
        tones[:, :, 2] += rng.normal(0, 0.06)
        shared = np.flatnonzero(rng.uniform(size=ROLES) < CAMOUFLAGE)
        tones[shared[shared != DETAIL]] = palette[rng.integers(0, len(palette))]
        other = rng.integers(0, len(textures.bank()), ROLES)
        texture = np.where(rng.uniform(size=ROLES) < style.swap, other, style.texture)
        texture[DETAIL] = textures.FLAT
        colour = textures.rgb(*np.moveaxis(tones, -1, 0))[self.roles]
        surfaces = Surfaces(
            dark=colour[:, 0],
            bright=colour[:, 1],
            texture=texture[self.roles],
            feature=np.maximum(side / style.repeats, MIN_FEATURE)[self.roles],
            turn=self.angle + style.turn[self.roles],
            shift=rng.uniform(0, textures.SIDE, (k, 2)),
            light=relief(
                self.centres * side + centre, self.axes / side, np.tile(self.directions @ sun, (k, 1)), self.bulge
            ),
        )
        return canvas.paint(self.points * side + centre, self.starts, surfaces)


def draw_palette(rng: np.random.Generator, count: int = 4) -> np.ndarray:
    """Tones of a scene: (count, 2, 3) hue, saturation, value of pairs of colours, with related hues."""
    tones = np.empty((count, 2, 3))
    tones[:, 0, 0] = rng.uniform() + rng.choice([0, 0.07, -0.08, 0.4, 0.55], count)
    tones[:, 1, 0] = tones[:, 0, 0] + rng.normal(0, 0.03, count)
    tones[:, :, 1] = rng.uniform(0.08, 0.6, (count, 1)) + rng.normal(0, 0.08, (count, 2))
    tones[:, 0, 2] = rng.uniform(0.25, 0.65, count)
    tones[:, 1, 2] = tones[:, 0, 2] + rng.uniform(0.12, 0.4, count)
    return tones


def paint_background(
    canvas: Canvas, rng: np.random.Generator, palette: np.ndarray, sun: np.ndarray, unit: float
) -> None:
    """Two to four textured regions: the whole image, then areas below wavy lines and blobs.

    unit: pixels of this canvas that are one pixel of a scene of the reference height.
    """
    height, width = canvas.labels.shape
    outlines = [np.array([(-1.0, -1.0), (width + 1, -1), (width + 1, height + 1), (-1, height + 1)])]
    for _ in range(rng.integers(1, 4)):
        if rng.uniform() < 0.6:
            x = np.linspace(-0.3, 1.3, 17)
            swing, waves, phase = rng.uniform(0, 0.12), rng.uniform(0.5, 3), rng.uniform(0, 2 * np.pi)
            wave = swing * np.sin(2 * np.pi * waves * x + phase)
            y = rng.uniform(0.25, 0.85) + rng.uniform(-0.5, 0.5) * (x - 0.5) + wave
            ground = np.concatenate([np.stack([x, y], axis=1), [(1.3, 3), (-0.3, 3)]])
            outlines.append(ground * (width, height))
        else:
            outline = blob(rng, rng.uniform(0.2, 0.5) * height, 0.25)
            outlines.append(outline + rng.uniform(0, 1, 2) * (width, height))
    centre, extent = np.array([width / 2, height / 2]), max(width, height) / 2
    k = len(outlines)
    feature = np.maximum(rng.uniform(7, 26, k) * unit, MIN_FEATURE)
    centres, extents = np.tile(centre, (k, 1)), np.full(k, extent)
    surfaces = _plain(rng, palette, sun, BACKGROUND_SHARED, feature, centres, extents, 0.12)
    canvas.paint(*joined(outlines), surfaces)


def paint_clutter(
    canvas: Canvas,
    rng: np.random.Generator,
    palette: np.ndarray,
    sun: np.ndarray,
    centres: np.ndarray,
    sides: np.ndarray,
) -> None:
    """Fragments that look like parts of objects but are none: centres (k, 2) and sides (k,) in pixels."""
    outlines = [_fragment(rng) * side + centre for centre, side in zip(centres, sides, strict=True)]
    feature = MIN_FEATURE + sides * rng.uniform(1 / 12, 1 / 4, len(sides))
    bulge = rng.choice([0.0, 0.3], (len(sides), 1))
    canvas.paint(*joined(outlines), _plain(rng, palette, sun, CLUTTER_SHARED, feature, centres, sides / 2, bulge))


def _fragment(rng: np.random.Generator) -> np.ndarray:
    """An ellipse, blob, bar, box or polygon of size about 1 around (0, 0)."""
    angle, broad = rng.uniform(0, np.pi), rng.uniform(0.25, 0.5)
    kind = rng.integers(0, 5)
    if kind == 0:
        return ellipse(0, 0, 0.5, broad, angle)
    if kind == 1:
        return blob(rng, 0.45, 0.3)
    if kind == 2:
        x, y = 0.7 * np.cos(angle), 0.7 * np.sin(angle)
        return limb(-x, -y, x, y, broad * 0.8, rng.uniform(0.15, 0.4))
    if kind == 3:
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        return box(0, 0, rng.uniform(0.6, 1.1), broad * 1.3, rng.uniform(0.4, 1.0)) @ turn
    corner = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 7)))
    return 0.6 * np.stack([np.cos(corner), np.sin(corner)], axis=1)


def _plain(
    rng: np.random.Generator,
    palette: np.ndarray,
    sun: np.ndarray,
    shared: float,
    feature: np.ndarray,
    centres: np.ndarray,
    extents: np.ndarray,
    bulge: float | np.ndarray,
) -> Surfaces:
    """k surfaces that belong to no category: tones of the palette with chance `shared`, else of their own."""
    k = len(centres)
    own = rng.uniform(size=k) >= shared
    tones = np.where(own[:, None, None], draw_palette(rng, k), palette[rng.integers(0, len(palette), k)])
    colour = textures.rgb(*np.moveaxis(tones, -1, 0))
    return Surfaces(
        dark=colour[:, 0],
        bright=colour[:, 1],
        texture=rng.integers(0, len(textures.bank()), k),
        feature=feature,
        turn=rng.uniform(0, np.pi, k),
        shift=rng.uniform(0, textures.SIDE, (k, 2)),
        light=relief(centres, np.eye(2) / extents[:, None, None], np.tile(sun, (k, 1)), np.full((k, 2), 1.0) * bulge),
    )


def joined(outlines: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The corners of all outlines (n, 2), and where each outline starts, with n at the end."""
    return np.concatenate(outlines), np.cumsum([0] + [len(outline) for outline in outlines])


def blob(rng: np.random.Generator, radius: float, wobble: float) -> np.ndarray:
    """A closed wavy outline (36, 2) around (0, 0)."""
    angle = np.linspace(0, 2 * np.pi, 36, endpoint=False)
    r = 1 + sum(wobble / k * np.sin(k * angle + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 4))
    return radius * np.stack([r * np.cos(angle), r * np.sin(angle) * rng.uniform(0.6, 1.2)], axis=1)
