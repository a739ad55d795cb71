"""The categories of drawn scenes: 80 that are annotated, and further ones for pretraining the trunk.

A category is a shape family with fixed dials, colours and textures.  Five families hold the 20 'PASCAL' categories
(the ones DeepMask20 is trained on, section 5) and 10 others; eleven families hold the other 50, so that those share no
shape with what DeepMask20 has seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from deepmask.data import artificial_families as artificial
from deepmask.data import natural_families as natural
from deepmask.data import pascal_families as pascal
from deepmask.data import textures
from deepmask.data.shapes import DIALS

PASCAL_FAMILIES = {
    f.__name__: f for f in (pascal.person, pascal.quadruped, pascal.vehicle, pascal.bird, pascal.furniture)
}
NOVEL_FAMILIES = {
    f.__name__: f
    for f in (
        *(artificial.bottle, artificial.plane, natural.plant, artificial.tool, artificial.robot, natural.fish),
        *(artificial.cup, natural.flower, artificial.house, natural.snake, natural.dome),
    )
}
FAMILIES = PASCAL_FAMILIES | NOVEL_FAMILIES
PASCAL_PER_FAMILY, OTHER_PER_FAMILY = 4, 2  # categories of each PASCAL family
NOVEL_CATEGORIES = 50  # spread over the novel families
ROLES = 5

_UPRIGHT, _TILTED, _ANY = 0.08, 0.45, 4.0  # standard deviation of the rotation in radians
_ROTATIONS = {
    "person": (_UPRIGHT, _TILTED),
    "furniture": (_UPRIGHT,),
    "house": (_UPRIGHT, _TILTED),
    "plane": (_ANY,),
    "tool": (_ANY,),
    "snake": (_TILTED, _ANY),
    "fish": (_UPRIGHT, _TILTED),
    "bottle": (_UPRIGHT, _ANY),
}
# hues of the roles, in turns
_SCHEMES = np.array(
    [
        [0, 0.04, 0.08, 0.5],
        [0, 0.33, 0.67, 0.1],
        [0, 0.5, 0.05, 0.45],
        [0, 0.08, 0.9, 0.55],
        [0, 0.25, 0.5, 0.75],
        [0, 0.42, 0.58, 0.1],
    ]
)


@dataclass(frozen=True)
class Style:
    """What all instances of a category have in common."""

    family: str
    dials: np.ndarray  # (DIALS,) in [0, 1]
    tones: np.ndarray  # (ROLES, 2, 3) hue, saturation, value of each role's two colours
    texture: np.ndarray  # (ROLES,) index into textures.bank()
    repeats: np.ndarray  # (ROLES,) texture features across the object
    turn: np.ndarray  # (ROLES,) direction of the texture in radians
    hue_spread: float  # standard deviation of an instance's hue shift, in turns
    swap: float  # chance that an instance has another texture on a role
    rotation: float  # standard deviation of an instance's rotation in radians
    aspect: float  # horizontal stretch


@cache
def categories() -> tuple[dict, ...]:
    """The 80 categories as COCO lists them: id from 1, name, supercategory (the family) and `pascal`."""
    counts = [(family, PASCAL_PER_FAMILY, True, 1) for family in PASCAL_FAMILIES]
    counts += [(family, OTHER_PER_FAMILY, False, PASCAL_PER_FAMILY + 1) for family in PASCAL_FAMILIES]
    for i, family in enumerate(NOVEL_FAMILIES):
        counts.append((family, (NOVEL_CATEGORIES + i) // len(NOVEL_FAMILIES), False, 1))
    listed = [
        {"name": f"{family}-{first + i}", "supercategory": family, "pascal": pascal}
        for family, count, pascal, first in counts
        for i in range(count)
    ]
    return tuple({"id": i, **category} for i, category in enumerate(listed, 1))


@cache
def styles() -> dict[int, Style]:
    """The style of each annotated category, by its id."""
    drawn = {family: iter(_family_styles(family, 0, 6)) for family in FAMILIES}
    return {category["id"]: next(drawn[category["supercategory"]]) for category in categories()}


@cache
def pretraining_styles(classes: int) -> tuple[Style, ...]:
    """`classes` further styles from all families, none of them an annotated category."""
    each = -(-classes // len(FAMILIES))
    drawn = [_family_styles(family, 1, each) for family in FAMILIES]
    return tuple(drawn[i % len(FAMILIES)][i // len(FAMILIES)] for i in range(classes))


def _family_styles(family: str, stream: int, count: int) -> list[Style]:
    """`count` styles whose dials are spread evenly: each dial has one value in each of `count` strata."""
    rng = np.random.default_rng([list(FAMILIES).index(family), stream])
    strata = np.stack([rng.permutation(count) for _ in range(DIALS)], axis=1)
    dials = (strata + rng.uniform(0.1, 0.9, strata.shape)) / count
    return [
        _style(family, dials[i], np.random.default_rng([list(FAMILIES).index(family), stream, i])) for i in range(count)
    ]


def _style(family: str, dials: np.ndarray, rng: np.random.Generator) -> Style:
    tones = np.empty((ROLES, 2, 3))
    hues = rng.permutation(rng.permutation(_SCHEMES)[0]) + rng.uniform()
    tones[:4, 0, 0] = hues
    tones[:4, 1, 0] = hues + rng.choice([0.0, 0.03, -0.06, 0.5], 4, p=[0.3, 0.3, 0.25, 0.15])
    tones[:4, :, 1] = rng.uniform(0.15, 0.8, (4, 2))
    tones[:4, 0, 2] = rng.uniform(0.25, 0.6, 4)
    tones[:4, 1, 2] = tones[:4, 0, 2] + rng.uniform(0.25, 0.45, 4)
    dark_detail = rng.uniform() < 0.65
    tones[4] = (rng.uniform(), 0.2, 0.08) if dark_detail else (rng.uniform(), 0.12, 0.95)
    texture = rng.integers(1, len(textures.bank()), ROLES)
    texture[rng.uniform(size=ROLES) < 0.15] = textures.FLAT
    texture[4] = textures.FLAT
    return Style(
        family=family,
        dials=dials,
        tones=tones,
        texture=texture,
        repeats=rng.uniform(5, 12, ROLES),
        turn=rng.choice([0, np.pi / 2, np.pi / 4, -np.pi / 4], ROLES, p=[0.3, 0.4, 0.15, 0.15]),
        hue_spread=float(rng.choice([0.02, 0.06, 0.2])),
        swap=float(rng.choice([0.05, 0.2, 0.4])),
        rotation=float(rng.choice(_ROTATIONS.get(family, (_UPRIGHT, _UPRIGHT, _TILTED)))),
        aspect=float(rng.uniform(0.85, 1.2)),
    )
