"""Textures and colours of drawn scenes.

A texture is a tile of 256 x 256 grey values that continues across its borders, with about eight features (stripes,
dots, cells) per side.  A surface blends two colours by it.  All of it is computed once per process from fixed seeds.
"""

from __future__ import annotations

from functools import cache

import numpy as np

SIDE = 256  # texels of a tile; a power of two, so that coordinates wrap by a bit mask
FEATURE = SIDE // 8  # texels of one feature
_CHANNELS = np.array([5.0, 3.0, 1.0])  # of red, green, blue around the hue circle, in sixths
FLAT = 0  # index of the texture without any pattern
# indices of some others, by what they resemble
CLOUDS, FUR, WOOD, GRAIN, SOFT_STRIPES, TARTAN, GRID, BRICKS = 2, 7, 8, 10, 14, 20, 21, 25


@cache
def bank() -> np.ndarray:
    """All textures: (T, 256, 256) float32 in [0, 1]; the first is flat."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32) / FEATURE  # in features
    rng = np.random.default_rng(0)
    tiles = [np.full((SIDE, SIDE), 0.5, np.float32)]
    tiles += [_noise(rng, power, 1.0) for power in (2.2, 2.8, 3.4)]  # clouds
    tiles += [_edge(_noise(rng, 3.6, 1.0) - level, 0.04) for level in (0.45, 0.5, 0.58)]  # patches
    tiles += [_noise(rng, 2.2, stretch) for stretch in (5.0, 9.0)]  # fur, wood
    tiles += [_noise(rng, 0.7, 1.0), _noise(rng, 1.4, 1.0)]  # grain
    tiles += [_edge(_wave(x) - level, 0.12) for level in (-0.4, 0.0, 0.5)]  # stripes
    tiles += [0.5 + 0.5 * _wave(x), _edge(_wave(x / 2) + 0.6 * _wave(x), 0.15)]
    tiles += [_edge(_wave(x + 0.8 * np.abs(y % 1 - 0.5)), 0.15), _edge(_wave(x + 0.25 * _wave(y / 2)), 0.15)]  # zigzag
    tiles += [_edge(_wave(x) * _wave(y), 0.08), _edge(_wave(x / 2) * _wave(y / 2), 0.05)]  # checks
    tiles += [0.5 * _edge(_wave(x), 0.1) + 0.5 * _edge(_wave(y), 0.1)]  # tartan
    tiles += [_edge(np.maximum(_wave(x), _wave(y)) - 0.85, 0.05)]  # grid lines
    tiles += [_edge(size - _dots(x, y), 0.04) for size in (0.25, 0.36)]  # dots
    tiles += [_edge(0.1 - np.abs(_dots(x, y) - 0.3), 0.03)]  # rings
    tiles += [_edge(np.minimum(_mortar(x / 2 + 0.5 * (np.floor(y) % 2)), _mortar(y)) - 0.1, 0.04)]  # bricks
    tiles += [_scales(x, y)]
    nearest, second = _cells(rng, 40)
    tiles += [np.clip(nearest / FEATURE, 0, 1), _edge(second - nearest - 3.0, 1.0)]  # pebbles, cracks
    nearest, second = _cells(rng, 110)
    tiles += [_edge(nearest / FEATURE - 0.3, 0.05), _edge(second - nearest - 2.5, 1.0)]
    return np.stack(tiles).astype(np.float32)


def rgb(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Colours (..., 3) float32 in [0, 255]; hue in turns (it wraps), saturation and value are clipped to [0, 1]."""
    saturation, value = (np.minimum(np.maximum(part, 0), 1)[..., None] for part in (saturation, value))
    sector = (np.asarray(hue)[..., None] * 6 + _CHANNELS) % 6
    ramp = np.minimum(np.maximum(np.minimum(sector, 4 - sector), 0), 1)
    return (255 * value * (1 - saturation * ramp)).astype(np.float32)


def _noise(rng: np.random.Generator, power: float, stretch: float) -> np.ndarray:
    """Noise with amplitude ~ frequency^-power/2, drawn out vertically by `stretch`, its ranks spread over [0, 1]."""
    fy, fx = np.meshgrid(np.fft.fftfreq(SIDE), np.fft.rfftfreq(SIDE), indexing="ij")
    frequency = np.hypot(fx, fy * stretch)
    frequency[frequency < 3 / SIDE] = np.inf  # nothing larger than a third of the tile: it would show as repetition
    spectrum = np.fft.rfft2(rng.standard_normal((SIDE, SIDE))) * frequency ** (-power / 2)
    field = np.fft.irfft2(spectrum, (SIDE, SIDE))
    return np.clip(0.5 + field / (4 * field.std()), 0, 1)


def _edge(field: np.ndarray, softness: float) -> np.ndarray:
    """0 where the field is negative, 1 where positive, with a ramp between."""
    return np.clip(0.5 + field / (2 * softness), 0, 1)


def _wave(x: np.ndarray) -> np.ndarray:
    return np.sin(2 * np.pi * x)


def _dots(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Distance, in features, to the nearest point of a staggered lattice."""
    return np.hypot((x + 0.5 * (np.floor(y) % 2)) % 1 - 0.5, y % 1 - 0.5)


def _mortar(x: np.ndarray) -> np.ndarray:
    """Distance to the nearest whole number."""
    return 0.5 - np.abs(x % 1 - 0.5)


def _scales(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Overlapping round scales, dark at their rims."""
    row = np.floor(y)
    return np.clip(np.hypot((x + 0.5 * (row % 2)) % 1 - 0.5, y - row) / 1.1, 0, 1)


def _cells(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Distances in texels to the nearest and second nearest of `count` points on the torus."""
    line = np.abs(np.arange(SIDE) - SIDE // 2).astype(np.float32)
    centre = np.hypot(line[:, None], line[None, :])  # distance on the torus to the middle of the tile
    shifts = rng.integers(0, SIDE, (count, 2))
    ordered = np.partition(np.stack([np.roll(centre, shift, (0, 1)) for shift in shifts]), 1, axis=0)
    return ordered[0], ordered[1]
