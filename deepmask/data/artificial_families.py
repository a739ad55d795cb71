"""Made shapes that no 'PASCAL' category of the drawn scenes has; see `deepmask.data.shapes`."""

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


def bottle(d: Dials) -> list[Part]:
    body, belly, waist, shoulder = d(0.24, 0.4), d(0.85, 1.15), d(0.8, 1.1), d(0.15, 0.4)
    neck, neck_length, cap, label, at = d(0.11, 0.19), d(0.15, 0.4), d(0.1, 0.22), d(0.25, 0.5), d(0.35, 0.6)
    badge, bands = d.pick(3), d.pick(2)
    top = -shoulder - neck_length
    glass = profile(
        [top, -shoulder, -shoulder * 0.3, 0, 0.5, 0.95, 1.0],
        [neck, neck, body * 0.8, body, body * waist, body * belly, body * belly * 0.9],
    )
    parts = [
        Part(glass, BODY, TUBE),
        Part(box(0, at, 2 * body * max(waist, 1), label), SECOND, TUBE),
        Part(box(0, top - cap * 0.4, neck * 2.5, cap), LIMB, TUBE),
        Part(box(0, top + neck_length * 0.7, neck * 2.2, 0.09), TRIM),
    ]
    if badge < 2:
        parts.append(Part(ellipse(0, at, body * 0.55, label * (0.25 + 0.12 * badge)), TRIM))
    if bands:
        parts.append(Part(box(0, 0.9, 2 * body * belly, 0.1), DETAIL))
    return parts


def plane(d: Dials) -> list[Part]:
    fat, span, chord, sweep = d(0.15, 0.24), d(0.6, 0.95), d(0.28, 0.45), d(-0.1, 0.5)
    at, tail, tail_chord, nose = d(-0.1, 0.2), d(0.3, 0.5), d(0.16, 0.28), d(0.5, 0.9)
    engines, stripe = d.pick(3), d.pick(2)
    parts = []
    for side in (-1, 1):
        wing = [
            (at + chord * 0.5, 0),
            (at - sweep + chord * 0.3, side * span),
            (at - sweep - chord * 0.3, side * span),
            (at - chord * 0.5, 0),
        ]
        fin = [(-0.6, 0), (-0.75, side * tail), (-0.75 - tail_chord, side * tail), (-0.95, 0)]
        parts += [Part(np.array(wing), SECOND), Part(np.array(fin), LIMB)]
        if engines:
            x, y = at - sweep * 0.45 + 0.12, side * span * 0.48
            parts.append(Part(limb(x - 0.16, y, x + 0.18, y, 0.16, 0.16), TRIM, BAR))
    hull = profile([-1, -0.5, nose - 0.3, nose, 1.0], [fat * 0.4, fat, fat, fat * 0.85, fat * 0.2])[:, ::-1]
    parts.append(Part(hull, BODY, BAR))
    if stripe:
        parts.append(Part(box(-0.05, 0, 0.24, fat * 2), TRIM))
    return parts + [Part(ellipse(nose - 0.05, 0, 0.12, fat * 0.55), DETAIL), Part(box(-0.75, 0, 0.4, fat * 0.5), LIMB)]


def tool(d: Dials) -> list[Part]:
    grip, thick, shaft, head, depth = d(0.4, 0.6), d(0.24, 0.34), d(0.17, 0.24), d(0.35, 0.55), d(0.3, 0.5)
    length, kind, bands, knob = d(0.35, 0.6), d.pick(5), 1 + d.pick(3), d.pick(2)
    parts = [Part(box(-length * 0.5, 0, length + 0.2, shaft), LIMB, BAR)]
    if kind == 0:  # hammer
        parts += [Part(box(0.1, 0, depth, head * 2), BODY, FLAT), Part(box(0.1, -head, depth * 1.2, 0.2), SECOND)]
    elif kind == 1:  # spoon
        parts += [
            Part(ellipse(head * 0.8, 0, head, depth * 0.9), BODY, ROUND),
            Part(ellipse(head * 0.85, 0, head * 0.6, depth * 0.5), SECOND),
        ]
    elif kind == 2:  # fork
        parts.append(Part(box(0.05, 0, 0.3, depth * 2), BODY))
        parts += [
            Part(limb(0.1, y * depth, 0.3 + head, y * depth, 0.2, 0.15), BODY if y else SECOND)
            for y in (-0.78, 0, 0.78)
        ]
    elif kind == 3:  # spade
        blade = [(0, -depth), (head * 1.2, -depth * 0.9), (head * 1.8, 0), (head * 1.2, depth * 0.9), (0, depth)]
        parts += [Part(np.array(blade), BODY, BAR), Part(box(head * 0.6, 0, head * 0.9, depth * 0.6), SECOND)]
    else:  # wrench
        parts += [
            Part(arc(head * 0.8, 0, head * 0.6, depth * 0.8, 0.5, 2 * np.pi - 0.5, 0.28), BODY),
            Part(ellipse(0.05, 0, 0.16, 0.16), SECOND),
        ]
    start = -length - 2 * grip
    parts.append(Part(limb(start, 0, -length, 0, thick, thick * 0.85), SECOND, BAR))
    parts += [Part(box(start + 2 * grip * (i + 0.5) / bands, 0, 0.14, thick), TRIM) for i in range(bands)]
    if knob:
        parts.append(Part(ellipse(start, 0, thick * 0.55, thick * 0.6), DETAIL))
    return parts


def robot(d: Dials) -> list[Part]:
    width, torso, head, head_height = d(0.32, 0.5), d(0.5, 0.75), d(0.22, 0.4), d(0.25, 0.42)
    leg, thick, reach, raised = d(0.25, 0.5), d(0.2, 0.28), d(0.35, 0.55), d(0.3, 2.2)
    round_head, panel, antenna, claws, wheels = d.pick(2), d.pick(3), d.pick(3), d.pick(2), d.pick(3)
    parts = []
    if wheels == 0:
        parts += [
            Part(box(0, torso + leg * 0.3, width * 1.2, leg), LIMB),
            Part(ellipse(0, torso + leg * 0.7, width * 0.9, leg * 0.45), TRIM, ROUND),
        ]
    else:
        for side in (-1, 1):
            parts += [
                Part(box(side * width * 0.55, torso + leg * 0.4, thick, leg), LIMB, TUBE),
                Part(box(side * width * 0.6, torso + leg * 0.9, thick * 1.6, 0.16), TRIM),
            ]
    for side in (-1, 1):
        hand = side * (width + reach * np.sin(raised)), 0.15 + reach * np.cos(raised)
        parts += [
            Part(limb(side * width * 0.9, 0.15, *hand, thick, thick * 0.8), LIMB),
            Part(box(*hand, 0.26, 0.26) if claws else ellipse(*hand, 0.15, 0.15), SECOND),
        ]
    top = -head_height
    if antenna:
        parts += [
            Part(limb(0, top * 0.8, 0, top - 0.3, 0.13, 0.11), TRIM),
            Part(ellipse(0, top - 0.32, 0.1, 0.1), DETAIL),
        ]
    parts.append(Part(box(0, torso * 0.5, 2 * width, torso, 1.15), BODY, TUBE))
    screen = (
        box(0, torso * 0.45, width * 1.1, torso * 0.5) if panel else ellipse(0, torso * 0.45, width * 0.6, width * 0.5)
    )
    parts += [Part(screen, TRIM), Part(ellipse(0, torso * 0.45, width * 0.22, width * 0.2), DETAIL)]
    face = (
        ellipse(0, top * 0.6, head, head_height * 0.65)
        if round_head
        else box(0, top * 0.55, head * 2, head_height * 1.1)
    )
    parts += [
        Part(face, SECOND, ROUND if round_head else FLAT),
        Part(box(0, top * 0.65, head * 1.4, head_height * 0.36), LIMB),
    ]
    return parts + [
        Part(ellipse(s * head * 0.35, top * 0.65, head * 0.17, head_height * 0.14), DETAIL) for s in (-1, 1)
    ]


def cup(d: Dials) -> list[Part]:
    width, height, taper, handle, thick = d(0.4, 0.62), d(0.7, 1.1), d(1.0, 1.5), d(0.2, 0.32), d(0.15, 0.22)
    rim, band, at = d(0.08, 0.17), d(0.16, 0.34), d(0.4, 0.7)
    saucer, spout, badge, lid = d.pick(3), d.pick(3), d.pick(2), d.pick(3)
    parts = [
        Part(
            arc(
                width * (0.85 + 0.1 * taper),
                height * 0.45,
                handle * 1.1,
                handle * 1.2,
                -0.55 * np.pi,
                0.55 * np.pi,
                thick,
            ),
            LIMB,
        )
    ]
    if saucer == 0:
        parts.append(Part(ellipse(0, height, width * 1.35, 0.16), SECOND, BAR))
    if spout == 0:
        parts.append(Part(limb(-width * 0.8, height * 0.6, -width * 1.6, height * 0.05, 0.32, 0.2), LIMB))
    parts += [
        Part(box(0, height * 0.5, 2 * width, height, taper), BODY, TUBE),
        Part(
            box(0, height * at, 2 * width * (taper + (1 - taper) * at), band, 1 + (taper - 1) * band / height),
            TRIM,
            TUBE,
        ),
    ]
    if badge:
        parts.append(Part(ellipse(0, height * at, width * 0.4, band * 0.75), SECOND))
    if lid:
        parts.append(Part(ellipse(0, 0, width * taper, rim), SECOND))
        return parts + [Part(ellipse(0, 0.02, width * taper * 0.75, rim * 0.6), DETAIL)]
    return parts + [
        Part(ellipse(0, 0, width * taper, rim * 1.8), SECOND, ROUND),
        Part(ellipse(0, -rim * 2, 0.13, 0.13), LIMB, ROUND),
    ]


def house(d: Dials) -> list[Part]:
    width, height, roof, eaves, ridge = d(0.5, 0.85), d(0.5, 0.9), d(0.3, 0.6), d(1.1, 1.3), d(0.0, 0.7)
    door, chimney, pane = d(0.2, 0.32), d(-0.7, 0.6), d(0.5, 0.75)
    columns, floors, smoke, plinth = 2 + d.pick(2), 1 + d.pick(2), d.pick(3), d.pick(2)
    parts = []
    if smoke:
        parts += [
            Part(box(width * chimney, -roof * 0.75, 0.22, roof * 1.1), LIMB),
            Part(box(width * chimney, -roof * 1.3, 0.3, 0.12), TRIM),
        ]
    parts.append(Part(box(0, height * 0.5, 2 * width, height), BODY))
    parts.append(Part(box(0, -roof * 0.5, 2 * width * eaves, roof, ridge), SECOND, BAR))
    step, rise = 2 * width / columns, height / (floors + 0.4)
    for row in range(floors):
        for column in range(columns):
            if row == floors - 1 and column == columns // 2:
                continue  # the door's place
            centre = (step * (column + 0.5) - width, rise * (row + 0.55))
            parts += [
                Part(box(*centre, step * pane, rise * pane), TRIM),
                Part(box(*centre, step * pane * 0.6, rise * pane * 0.6), DETAIL),
            ]
    x = step * (columns // 2 + 0.5) - width
    parts.append(Part(box(x, height - rise * 0.45, door * 1.4, rise * 0.9), LIMB))
    if plinth:
        parts.append(Part(box(0, height, 2.15 * width, 0.14), TRIM))
    return parts
