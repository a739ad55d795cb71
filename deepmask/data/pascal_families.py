"""The five shape families of the drawn scenes' 'PASCAL' categories; see `deepmask.data.shapes`."""

from __future__ import annotations

import numpy as np

from deepmask.data.shapes import (
    BAR,
    BODY,
    DETAIL,
    FLAT,
    LIMB,
    ROUND,
    SECOND,
    TRIM,
    TUBE,
    Dials,
    Part,
    arc,
    box,
    ellipse,
    limb,
    profile,
)


def person(d: Dials) -> list[Part]:
    head, shoulder, torso, leg = d(0.2, 0.3), d(0.28, 0.42), d(0.55, 0.8), d(0.4, 0.75)
    thick, reach, raised, stance, hip = d(0.19, 0.27), d(0.4, 0.6), d(0.2, 2.4), d(0.14, 0.24), d(0.22, 0.4)
    hat, skirt = d.pick(4), d.pick(3)
    parts = []
    for side in (-1, 1):
        foot = side * (stance + 0.08)
        parts += [
            Part(limb(side * stance, torso - 0.05, foot, torso + leg, thick * 1.15, thick), LIMB, TUBE),
            Part(ellipse(foot + 0.03, torso + leg, thick * 0.75, thick * 0.42), TRIM),
        ]
    parts.append(Part(profile([0, torso * 0.5, torso], [shoulder, (shoulder + hip) * 0.47, hip]), BODY, TUBE))
    if skirt == 0:
        parts.append(Part(box(0, torso * 1.15, hip * 3, torso * 0.6, 0.6), SECOND, TUBE))
    parts.append(Part(box(0, torso * 0.78, hip * 2.05, torso * 0.16), TRIM))
    for side in (-1, 1):
        hand = side * (shoulder + reach * np.sin(raised)), 0.1 + reach * np.cos(raised)
        parts += [
            Part(limb(side * shoulder * 0.85, 0.1, *hand, thick, thick * 0.8), BODY, FLAT),
            Part(ellipse(*hand, thick * 0.5, thick * 0.5), SECOND),
        ]
    parts.append(Part(ellipse(0, -head * 0.9, head * 0.88, head), SECOND, ROUND))
    if hat == 0:
        parts += [
            Part(box(0, -head * 1.9, head * 1.3, head * 0.9, 0.9), TRIM),
            Part(box(0, -head * 1.45, head * 2.4, head * 0.28), TRIM),
        ]
    elif hat == 1:
        parts.append(Part(arc(0, -head * 0.95, head * 0.72, head * 0.8, np.pi, 2 * np.pi, head * 0.6), LIMB))
    elif hat == 2:
        parts.append(Part(np.array([(-head, -head * 1.3), (0, -head * 2.7), (head, -head * 1.3)]), TRIM))
    return parts + [Part(ellipse(side * head * 0.36, -head, head * 0.16, head * 0.18), DETAIL) for side in (-1, 1)]


def quadruped(d: Dials) -> list[Part]:
    length, depth, leg, thick = d(0.62, 0.9), d(0.32, 0.48), d(0.3, 0.65), d(0.18, 0.28)
    neck, head, snout, tail = d(0.1, 0.5), d(0.22, 0.32), d(0.6, 1.3), d(-0.9, 0.7)
    ears, tail_kind, patch = d.pick(3), d.pick(3), d.pick(3)
    parts = [
        Part(limb(x * length, depth * 0.3, x * length, depth + leg, thick, thick * 0.85), LIMB, TUBE)
        for x in (-0.5, 0.85)
    ]
    end = (-length - 0.45 * np.cos(tail), -0.1 + 0.45 * np.sin(tail))
    parts.append(Part(limb(-length * 0.85, -0.1, *end, 0.13 + 0.08 * tail_kind, 0.13), SECOND))
    parts.append(Part(ellipse(0, 0, length, depth), BODY, ROUND))
    if patch < 2:
        parts.append(Part(ellipse(-0.1 * length, -depth * 0.25, length * (0.35 + 0.2 * patch), depth * 0.5), TRIM))
    parts += [
        Part(limb(x * length, depth * 0.4, x * length, depth + leg, thick, thick * 0.85), LIMB, TUBE)
        for x in (-0.78, 0.57)
    ]
    x, y = length * 0.95, -depth * 0.4 - neck
    parts.append(Part(limb(length * 0.68, 0, x, y, depth * 1.1, head * 1.2), BODY))
    if ears == 0:
        parts += [
            Part(
                np.array([(x + s, y - head * 0.5), (x + s - 0.02, y - head * 1.7), (x + s + 0.16, y - head * 0.6)]),
                LIMB,
            )
            for s in (-0.16, 0.02)
        ]
    elif ears == 1:
        parts.append(Part(ellipse(x - head * 0.6, y - head * 0.5, head * 0.42, head * 0.6, 0.5), LIMB))
    else:
        parts.append(Part(arc(x, y - head * 1.05, head * 0.5, head * 0.6, -0.3, np.pi + 0.3, head * 0.3), TRIM))
    parts += [
        Part(ellipse(x, y, head, head * 0.85), SECOND, ROUND),
        Part(
            limb(x + head * 0.4, y + head * 0.2, x + head * (0.6 + snout * 0.5), y + head * 0.35, head, head * 0.7),
            SECOND,
        ),
        Part(ellipse(x + head * (0.75 + snout * 0.5), y + head * 0.2, head * 0.2, head * 0.2), DETAIL),
    ]
    return parts + [Part(ellipse(x + head * 0.2, y - head * 0.25, head * 0.17, head * 0.17), DETAIL)]


def vehicle(d: Dials) -> list[Part]:
    length, height, cabin, cabin_length = d(0.75, 1.0), d(0.2, 0.34), d(0.25, 0.55), d(0.5, 0.95)
    set_back, slant, wheel = d(-0.25, 0.05), d(0.6, 1.0), d(0.18, 0.28)
    wheels, windows, load = 2 + d.pick(2), 2 + d.pick(3), d.pick(3)
    parts = [Part(box(set_back, -height - cabin * 0.5, 2 * cabin_length * 0.8, cabin, slant), SECOND, FLAT)]
    pane = 1.5 * cabin_length * (0.4 + 0.6 * slant) / windows
    parts += [
        Part(box(set_back + pane * (i - (windows - 1) / 2), -height - cabin * 0.5, pane * 0.72, cabin * 0.55), DETAIL)
        for i in range(windows)
    ]
    if load == 0:
        parts.append(Part(box(set_back, -height - cabin - 0.06, cabin_length, 0.14), LIMB))
    body = profile([-height * 1.05, -height * 0.5, height], [length * 0.94, length, length])
    parts += [
        Part(body, BODY, BAR),
        Part(box(0, height * 0.1, 2 * length, height * 0.4), TRIM),
        Part(ellipse(length * 0.9, -height * 0.35, 0.1, 0.1), DETAIL),
    ]
    for x in np.linspace(-0.62, 0.62, wheels) * length:
        parts += [
            Part(ellipse(x, height, wheel, wheel), LIMB),
            Part(ellipse(x, height, wheel * 0.45, wheel * 0.45), TRIM),
        ]
    return parts


def bird(d: Dials) -> list[Part]:
    length, depth, lean = d(0.5, 0.7), d(0.32, 0.45), d(0.1, 0.7)
    neck, head, beak, tail, fan, leg = d(0.12, 0.5), d(0.2, 0.3), d(0.5, 1.3), d(0.4, 0.75), d(0.12, 0.3), d(0.15, 0.4)
    wing, crest = d(0.5, 0.8), d.pick(3)
    cos, sin = np.cos(lean), np.sin(lean)
    back = np.array([-length * cos, length * sin]) * 0.7
    tip = back + tail * np.array([-cos, sin])
    across = np.array([sin, cos]) * fan
    parts = [Part(limb(x, depth * 0.6, x + 0.05, depth + leg, 0.15, 0.12), LIMB) for x in (-0.12, 0.16)]
    parts += [Part(ellipse(x + 0.12, depth + leg, 0.14, 0.06), LIMB) for x in (-0.12, 0.16)]
    parts.append(Part(np.array([back + across * 0.6, tip + across, tip - across, back - across * 0.6]), TRIM))
    parts.append(Part(ellipse(0, 0, length, depth, -lean), BODY, ROUND))
    x, y = length * cos * 0.8 + 0.06, -length * sin * 0.8 - neck
    parts += [
        Part(limb(length * cos * 0.45, -length * sin * 0.4, x, y, depth * 1.1, head * 1.3), BODY),
        Part(ellipse(-length * 0.15, -0.02, length * wing, depth * 0.55, -lean - 0.25), SECOND, ROUND),
    ]
    if crest == 0:
        parts.append(
            Part(
                np.array(
                    [
                        (x + head * 0.3, y - head * 0.7),
                        (x - head * 1.1, y - head * 1.5),
                        (x - head * 0.8, y - head * 0.2),
                    ]
                ),
                TRIM,
            )
        )
    bill = np.array(
        [(x + head * 0.6, y - head * 0.4), (x + head * (1.1 + beak), y + head * 0.15), (x + head * 0.6, y + head * 0.5)]
    )
    return parts + [
        Part(bill, LIMB),
        Part(ellipse(x, y, head, head * 0.92), SECOND, ROUND),
        Part(ellipse(x + head * 0.3, y - head * 0.2, head * 0.2, head * 0.2), DETAIL),
    ]


def furniture(d: Dials) -> list[Part]:
    width, seat, leg, thick = d(0.45, 0.85), d(0.16, 0.34), d(0.35, 0.65), d(0.16, 0.24)
    back, back_width, splay = d(0.5, 0.95), d(0.6, 1.0), d(0.0, 0.15)
    kind, arms, rungs = d.pick(3), d.pick(2), d.pick(2)
    parts = []
    if kind < 2:
        shift = 0.0 if kind else width * (back_width - 1)
        panel = box(shift, -seat - back * 0.5, 2 * width * back_width, back, 0.9)
        parts += [
            Part(panel, SECOND, FLAT),
            Part(box(shift, -seat - back * 0.55, width * back_width * 1.1, back * 0.5), TRIM),
        ]
    for x in (-0.55, 0.55):
        parts.append(Part(limb(x * width, 0, x * width * (1 + splay), leg * 0.85, thick, thick * 0.8), LIMB))
    for x in (-0.88, 0.88):
        parts.append(Part(limb(x * width, 0, x * width * (1 + splay), leg, thick, thick * 0.85), LIMB, TUBE))
    if rungs:
        parts.append(Part(box(0, leg * 0.55, 2 * width, thick * 0.7), TRIM))
    parts.append(Part(box(0, -seat * 0.4, 2.15 * width, seat * 1.2, 0.92), BODY, BAR))
    if arms or kind == 2:
        parts += [Part(box(s * width, -seat * 1.3, thick * 1.2, seat * 2.2), BODY) for s in (-1, 1)]
    return parts + [Part(ellipse(s * width * 0.4, -seat * 0.4, 0.06, 0.06), DETAIL) for s in (-1, 1)]
