"""Grown shapes that no 'PASCAL' category of the drawn scenes has; see `deepmask.data.shapes`."""

from __future__ import annotations

import numpy as np

from deepmask.data.shapes import (
    BODY,
    DETAIL,
    LIMB,
    ROUND,
    SECOND,
    TRIM,
    TUBE,
    Dials,
    Part,
    box,
    ellipse,
    limb,
    profile,
    ribbon,
)


def plant(d: Dials) -> list[Part]:
    pot, pot_height, taper, stem, height = d(0.28, 0.45), d(0.3, 0.5), d(1.1, 1.6), d(0.16, 0.28), d(0.25, 0.6)
    crown, spread, flat = d(0.3, 0.42), d(0.25, 0.5), d(0.6, 1.0)
    leaves, kind, fruit, rim = 3 + d.pick(4), d.pick(2), d.pick(3), d.pick(2)
    parts = [Part(box(0, 0.1 - height * 0.5, stem, height + 0.3, 0.8), LIMB, TUBE)]
    for i in range(leaves):
        angle = np.pi * (1 + (i + 0.5) / leaves)
        x, y = spread * np.cos(angle), -height + spread * np.sin(angle)
        if kind:
            parts.append(Part(ellipse(x, y, crown, crown * flat), BODY if i % 2 else SECOND, ROUND))
        else:
            parts.append(Part(ellipse(x * 1.2, y * 1.1, crown * 1.2, crown * 0.5, angle), BODY if i % 2 else SECOND))
    parts.append(Part(ellipse(0, -height - spread * 0.3, crown * 0.95, crown * 0.8), BODY, ROUND))
    if fruit:
        parts += [
            Part(ellipse(x * spread, -height - y, 0.09, 0.09), DETAIL if fruit == 1 else TRIM)
            for x, y in ((-0.8, 0.15), (0.1, 0.45), (0.75, 0.1), (-0.2, 0.02))
        ]
    parts.append(Part(box(0, pot_height * 0.5, pot * 2, pot_height, taper), TRIM, TUBE))
    if rim:
        parts.append(Part(box(0, 0.03, pot * 2.2 * taper, 0.16), LIMB, TUBE))
    return parts


def fish(d: Dials) -> list[Part]:
    depth, tail, fork, fin, nose = d(0.32, 0.62), d(0.35, 0.6), d(0.0, 0.25), d(0.25, 0.5), d(0.7, 1.15)
    at, eye, bands, belly, mouth = d(-0.2, 0.25), d(0.08, 0.13), d.pick(4), d.pick(2), d.pick(2)
    caudal = np.array(
        [
            (-0.6, 0.1),
            (-0.85 - tail * 0.8, tail),
            (-0.85 - tail * 0.6 + fork, 0),
            (-0.85 - tail * 0.8, -tail),
            (-0.6, -0.1),
        ]
    )
    dorsal = np.array([(at + 0.35, -depth * 0.7), (at - 0.1, -depth - fin), (at - 0.45, -depth * 0.6)])
    ventral = dorsal * (0.8, -0.8)
    parts = [Part(caudal, LIMB), Part(dorsal, LIMB), Part(ventral, LIMB)]
    body = ellipse(0, 0, 1, depth)
    body[body[:, 0] > 0] *= (nose, 1)
    parts.append(Part(body, BODY, ROUND))
    if belly:
        parts.append(Part(ellipse(0, depth * 0.45, 0.6, depth * 0.35), TRIM))
    parts += [Part(box(x, 0, 0.14, depth * 1.5 * (1 - abs(x))), TRIM) for x in (-0.35, -0.05, 0.25)[:bands]]
    face = np.array(
        [
            (nose * 0.98, 0),
            (nose * 0.75, depth * 0.55),
            (nose * 0.5, depth * 0.75),
            (nose * 0.38, 0),
            (nose * 0.5, -depth * 0.75),
            (nose * 0.75, -depth * 0.55),
        ]
    )
    parts += [Part(face, SECOND), Part(ellipse(-0.05, 0.08, 0.26, 0.13, 0.3), LIMB)]
    if mouth:
        parts.append(Part(box(nose * 0.88, depth * 0.2, 0.2, 0.07), DETAIL))
    return parts + [Part(ellipse(nose * 0.68, -depth * 0.18, eye, eye), DETAIL)]


def flower(d: Dials) -> list[Part]:
    disc, petal, broad, stem, thick = d(0.2, 0.34), d(0.3, 0.48), d(0.16, 0.3), d(0.5, 1.0), d(0.13, 0.2)
    petals, leaf, stalk, second, core = 4 + d.pick(5), d(0.3, 0.5), d.pick(4), d.pick(2), d.pick(2)
    parts = []
    if stalk:
        foot = disc + petal + stem
        parts += [
            Part(limb(0, 0, 0.05, foot, thick, thick), LIMB, TUBE),
            Part(ellipse(leaf * 0.8, foot * 0.8, leaf, 0.15, -0.5), LIMB),
            Part(ellipse(-leaf * 0.7, foot * 0.88, leaf, 0.14, 0.6), LIMB),
        ]
    for i in range(petals):
        angle = 2 * np.pi * (i + 0.25) / petals
        x, y = (disc * 0.6 + petal) * np.cos(angle), (disc * 0.6 + petal) * np.sin(angle)
        parts.append(Part(ellipse(x, y, petal, broad * 6 / (petals + 1), angle), TRIM if second and i % 2 else BODY))
    parts.append(Part(ellipse(0, 0, disc, disc), SECOND, ROUND))
    return parts + ([Part(ellipse(0, 0, disc * 0.45, disc * 0.45), DETAIL)] if core else [])


def snake(d: Dials) -> list[Part]:
    thick, waves, swing, head, taper = d(0.24, 0.36), d(0.7, 1.7), d(0.18, 0.4), d(1.2, 1.6), d(0.4, 0.9)
    bands, tongue, phase = 2 + d.pick(4), d.pick(2), d(0.0, 6.0)
    s = np.linspace(0, 1, 22)
    path = np.stack([2 * s - 1, swing * np.sin(2 * np.pi * waves * s + phase)], axis=1)
    width = thick * (taper + (1 - taper) * np.minimum(s * 2, 1))
    parts = [Part(ribbon(path, width), BODY)]
    for i in range(bands):
        at = slice(2 + i * 16 // bands, 5 + i * 16 // bands)
        parts.append(Part(ribbon(path[at], width[at]), SECOND if i % 2 else TRIM))
    (x, y), r = path[-1], thick * head / 2
    turn = float(np.arctan2(*(path[-1] - path[-3])[::-1]))
    ahead, side = np.array([np.cos(turn), np.sin(turn)]), np.array([-np.sin(turn), np.cos(turn)])
    if tongue:
        tip = path[-1] + ahead * r * 2.3
        parts.append(Part(limb(x, y, *tip, 0.12, 0.08), LIMB))
    parts.append(Part(ellipse(x, y, r * 1.35, r, turn), LIMB, ROUND))
    return parts + [
        Part(ellipse(*(path[-1] + ahead * r * 0.3 + side * s * r * 0.55), r * 0.24, r * 0.24), DETAIL) for s in (-1, 1)
    ]


def dome(d: Dials) -> list[Part]:
    width, height, stem, foot, length = d(0.5, 0.8), d(0.35, 0.7), d(0.16, 0.3), d(1.0, 1.7), d(0.4, 0.9)
    rim, base = d(0.1, 0.2), d(0.08, 0.16)
    spots, collar, kind, plate = d.pick(3), d.pick(2), d.pick(3), d.pick(2)
    parts = [Part(profile([-0.1, length * 0.4, length], [stem, stem * 0.95, stem * foot]), LIMB, TUBE)]
    if plate:
        parts.append(Part(box(0, length, stem * foot * 3, base * 2), TRIM, TUBE))
    if collar:
        parts.append(Part(box(0, length * 0.3, stem * 3, 0.14, 0.7), SECOND))
    angle = np.linspace(np.pi, 2 * np.pi, 14)
    cap = np.stack([width * np.cos(angle), height * np.sin(angle)], axis=1)
    if kind == 0:
        cap = box(0, -height * 0.5, 2 * width, height, 0.45)
    parts += [Part(cap, BODY, ROUND), Part(box(0, 0, 2.04 * width, rim, 0.95), SECOND, TUBE)]
    if spots:
        parts += [
            Part(ellipse(x * width, -y * height, 0.11 * spots, 0.09 * spots), TRIM)
            for x, y in ((-0.45, 0.35), (0.05, 0.6), (0.5, 0.3))
        ]
    return parts + [Part(ellipse(0, -height, 0.12, 0.1), DETAIL)]
