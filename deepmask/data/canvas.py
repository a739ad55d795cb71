"""The canvas of drawn scenes: paint surface numbers first, colours once at the end.

Every polygon writes the number of its surface into one label map, later ones over earlier ones.  Which pixels of an
object are visible is then read off the map, exactly, and all colours come from one pass over the pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import pairwise

import cv2
import numpy as np

from deepmask.data import textures

SUBPIXEL_BITS = 4  # polygon corners are rounded to 1/16 pixel
POSITIVE = 1 << 15  # added to texel coordinates: a multiple of the tile that makes them positive


@dataclass
class Surfaces:
    """How k polygons look."""

    dark: np.ndarray  # (k, 3) float32 RGB in [0, 255] where the texture is 0
    bright: np.ndarray  # (k, 3) where it is 1
    texture: np.ndarray  # (k,) int index into textures.bank()
    feature: np.ndarray  # (k,) pixels of one texture feature
    turn: np.ndarray  # (k,) direction of the texture in radians
    shift: np.ndarray  # (k, 2) its offset in texels
    light: np.ndarray  # (k, 6) brightness: coefficients of 1, x, y, x^2, xy, y^2, in pixels


def relief(centre: np.ndarray, axes: np.ndarray, slope: np.ndarray, bulge: np.ndarray) -> np.ndarray:
    """Brightness 1 + slope . u - bulge . u^2 at u = axes (p - centre), as the (k, 6) coefficients of `Surfaces.light`.

    centre, slope, bulge: (k, 2); axes: (k, 2, 2), rows are the two directions, divided by the part's half extents.
    """
    a, b = axes[:, :, 0], axes[:, :, 1]
    c = -(axes @ centre[:, :, None])[:, :, 0]
    terms = np.empty((6, *centre.shape))
    terms[0] = slope * c - bulge * c * c + 0.5  # the two halves of the constant 1
    terms[1] = (slope - 2 * bulge * c) * a
    terms[2] = (slope - 2 * bulge * c) * b
    terms[3] = -bulge * a * a
    terms[4] = -2 * bulge * a * b
    terms[5] = -bulge * b * b
    return terms.sum(2).T


class Canvas:
    """A label map of height x width pixels and the surfaces painted on it; label 0 is unpainted and black."""

    def __init__(self, height: int, width: int) -> None:
        self.labels = np.zeros((height, width), np.int32)
        self._painted = [
            Surfaces(
                dark=np.zeros((1, 3)),
                bright=np.zeros((1, 3)),
                texture=np.zeros(1, int),
                feature=np.ones(1),
                turn=np.zeros(1),
                shift=np.zeros((1, 2)),
                light=np.zeros((1, 6)),
            )
        ]
        self.count = 1

    def paint(self, points: np.ndarray, starts: np.ndarray, surfaces: Surfaces) -> int:
        """Fill k polygons one after another; returns the label of the first.

        points: (n, 2) x, y in pixels, the corners of all polygons; starts: (k + 1,) where each begins, and n.
        """
        first = self.count
        corners = np.rint((points - 0.5) * (1 << SUBPIXEL_BITS)).astype(np.int32)  # OpenCV: pixel centres are whole
        bounds = starts.tolist()
        for label, (start, stop) in enumerate(pairwise(bounds), first):
            cv2.fillPoly(self.labels, [corners[start:stop]], label, shift=SUBPIXEL_BITS)
        self._painted.append(surfaces)
        self.count += len(bounds) - 1
        return first

    def colours(self) -> np.ndarray:
        """The picture: (H, W, 3) float32 in [0, 255]."""
        table = {f.name: np.concatenate([getattr(s, f.name) for s in self._painted]) for f in fields(Surfaces)}
        labels = self.labels.ravel().astype(np.intp)
        height, width = self.labels.shape
        x = np.tile(np.arange(width, dtype=np.float32), height)
        y = np.repeat(np.arange(height, dtype=np.float32), width)

        def per_pixel(values: np.ndarray) -> np.ndarray:
            return np.take(values.astype(np.float32), labels)

        step = textures.FEATURE / table["feature"]
        cos, sin = per_pixel(np.cos(table["turn"]) * step), per_pixel(np.sin(table["turn"]) * step)
        u = (x * cos + y * sin + per_pixel(table["shift"][:, 0] + POSITIVE)).astype(np.int32) & (textures.SIDE - 1)
        v = (y * cos - x * sin + per_pixel(table["shift"][:, 1] + POSITIVE)).astype(np.int32) & (textures.SIDE - 1)
        tile = np.take(table["texture"].astype(np.int32) * textures.SIDE**2, labels)
        texel = np.take(textures.bank().ravel(), tile + v * textures.SIDE + u)

        one, fx, fy, fxx, fxy, fyy = (per_pixel(column) for column in table["light"].T)
        light = one + x * (fx + x * fxx + y * fxy) + y * (fy + y * fyy)
        np.clip(light, 0.35, 1.6, out=light)
        picture = np.empty((height, width, 3), np.float32)
        for channel in range(3):
            dark, bright = table["dark"][:, channel], table["bright"][:, channel]
            colour = (per_pixel(dark) + texel * per_pixel(bright - dark)) * light
            picture[..., channel] = colour.reshape(height, width)
        return np.clip(picture, 0, 255, out=picture)
