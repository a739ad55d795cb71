"""What the shape families of drawn scenes are built from: parts, a category's dials, and outlines.

A family is a function that turns a category's dials into the parts of one object, listed from back to front, in
coordinates of its own (x right, y down); the object is scaled to its size later.  Bodies are compact and limbs thick,
so that a network that sees 80 x 80 pixels can learn them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

BODY, SECOND, LIMB, TRIM, DETAIL = range(5)  # roles: each has its own colours and texture
FLAT, ROUND, TUBE, BAR = (0.0, 0.0), (0.25, 0.25), (0.5, 0.0), (0.0, 0.5)  # how a part darkens towards its edges
DIALS = 16  # values that define a category within its family

_CIRCLE = np.stack([np.cos(t := np.linspace(0, 2 * np.pi, 20, endpoint=False)), np.sin(t)], axis=1)


class Part(NamedTuple):
    """One polygon of an object."""

    outline: np.ndarray  # (n, 2) x, y
    role: int
    form: tuple[float, float] = FLAT


class Dials:
    """A category's values in [0, 1], taken one after another; sizes vary between instances, choices do not."""

    def __init__(self, values: np.ndarray, jitter: np.ndarray) -> None:
        """values: (DIALS,) of the category; jitter: (DIALS,) relative deviations of the instance."""
        self._pairs = iter(zip(values.tolist(), jitter.tolist(), strict=True))

    def __call__(self, low: float, high: float) -> float:
        value, jitter = next(self._pairs)
        return (low + (high - low) * value) * (1 + jitter)

    def pick(self, count: int) -> int:
        return int(next(self._pairs)[0] * count)


def ellipse(x: float, y: float, rx: float, ry: float, turn: float = 0.0) -> np.ndarray:
    """An ellipse around x, y with radii rx and ry, turned by `turn` radians."""
    outline = _CIRCLE * (rx, ry)
    if turn:
        cos, sin = np.cos(turn), np.sin(turn)
        outline = outline @ np.array([[cos, sin], [-sin, cos]])
    return outline + (x, y)


def box(x: float, y: float, width: float, height: float, top: float = 1.0) -> np.ndarray:
    """A box around its centre; its upper edge is `top` times as long as the lower one."""
    w, h = width / 2, height / 2
    return np.array([(x - w * top, y - h), (x + w * top, y - h), (x + w, y + h), (x - w, y + h)])


def limb(x0: float, y0: float, x1: float, y1: float, start: float, end: float) -> np.ndarray:
    """A bar between two points, `start` and `end` wide, with blunt ends."""
    along = np.array([x1 - x0, y1 - y0])
    along = along / max(float(np.hypot(*along)), 1e-6)
    across = np.array([-along[1], along[0]])
    a, b = np.array([x0, y0]), np.array([x1, y1])
    s, e = start / 2, end / 2
    return np.stack(
        [a + across * s, a - along * s * 0.5, a - across * s, b - across * e, b + along * e * 0.5, b + across * e]
    )


def profile(y: list[float], half: list[float], x: float = 0.0) -> np.ndarray:
    """A symmetric outline: half widths at heights y."""
    right = np.stack([np.add(half, x), y], axis=1)
    left = np.stack([np.subtract(x, half), y], axis=1)
    return np.concatenate([right, left[::-1]])


def ribbon(path: np.ndarray, width: np.ndarray) -> np.ndarray:
    """A band of the given widths (n,) along a path (n, 2)."""
    along = np.gradient(path, axis=0)
    across = np.stack([-along[:, 1], along[:, 0]], axis=1) / np.maximum(np.hypot(*along.T), 1e-6)[:, None]
    side = across * (width / 2)[:, None]
    return np.concatenate([path + side, (path - side)[::-1]])


def arc(x: float, y: float, rx: float, ry: float, start: float, stop: float, width: float) -> np.ndarray:
    """A band along part of an ellipse, from angle `start` to `stop` in radians."""
    angle = np.linspace(start, stop, 14)
    path = np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], axis=1)
    return ribbon(path, np.full(14, width))
