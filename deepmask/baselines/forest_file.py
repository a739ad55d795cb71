"""The file of a structured edge forest, checked before OpenCV reads it.

OpenCV looks up in its arrays whatever numbers a file has, and ends the whole program where these lead out of them.
"""

from __future__ import annotations

import re

import numpy as np

FIXED = {  # options whose values are the layout of `deepmask.baselines.forest`, and of OpenCV's model.yml.gz
    "stride": 2,
    "shrinkNumber": 2,
    "patchSize": 32,
    "patchInnerSize": 16,
    "numberOfGradientOrientations": 4,
    "selfsimilarityGridSize": 5,
}
RADII = ("gradientSmoothingRadius", "regFeatureSmoothingRadius", "ssFeatureSmoothingRadius")
RADII += ("gradientNormalizationRadius",)
LARGEST_RADIUS = 64  # px
TREES, EVALUATED = "numberOfTrees", "numberOfTreesToEvaluate"
LISTS = ("childs", "featureIds", "thresholds", "edgeBoundaries", "edgeBins")
FEATURES = 16 * 16 * 13 + 25 * 24 // 2 * 13  # of a patch: cells times channels, and pairs of places times channels
BINS = 16 * 16  # pixels in the centre of a patch

_INTEGER = rb"(?:0|[1-9]\d{0,9})"
_REAL = rb"-?\d+(?:\.\d*)?(?:e[+-]?\d+)?"
_OPTION = re.compile(rb"\s*+(\w+): *+(" + _INTEGER + rb")[ \r]*+(?=\n|\Z)")


def check(text: bytes) -> None:
    """Raise ValueError unless OpenCV can read this text and detect with what it finds: lists of fitting numbers."""
    header, *parts = re.split(rb"^(\w+):", text, flags=re.MULTILINE)
    if not re.fullmatch(rb"%YAML:1\.0\s*(---)?\s*", header):
        raise ValueError("it does not start like one")
    sections = dict(zip((key.decode() for key in parts[::2]), parts[1::2], strict=True))
    if sorted(sections) != sorted(("options", *LISTS)) or len(parts) != 2 * len(sections):
        raise ValueError(f"it does not consist of options, {', '.join(LISTS)}")
    trees = _check_options(sections["options"])
    _check_trees(trees, *(_numbers(name, sections[name]) for name in LISTS))


def _check_options(text: bytes) -> int:
    """The number of trees."""
    found = {key.decode(): int(value) for key, value in _OPTION.findall(text)}
    if _OPTION.sub(b"", text).strip():
        raise ValueError("its options are not all numbers")
    for key, value in FIXED.items():
        if found.get(key) != value:
            raise ValueError(f"its option {key} is {found.get(key)}, not {value}")
    for key in RADII:
        if not 0 <= found.get(key, -1) <= LARGEST_RADIUS:
            raise ValueError(f"its option {key} is {found.get(key)}")
    if not 1 <= found.get(EVALUATED, 0) <= found.get(TREES, 0):
        raise ValueError(f"its option {EVALUATED} is {found.get(EVALUATED)} of {found.get(TREES)} trees")
    return found[TREES]


def _numbers(name: str, text: bytes) -> np.ndarray:
    """(n,) float64 of one list, or of several that OpenCV joins."""
    number = _REAL if name == "thresholds" else _INTEGER
    row = rb"\[\s*+(?:" + number + rb"(?:\s*+,\s*+" + number + rb")*+)?+\s*+\]"
    if not re.fullmatch(rb"\s*+(?:" + row + rb"|(?:-\s*+" + row + rb"\s*+)++)\s*+", text):
        raise ValueError(f"its {name} are no lists of numbers")
    return np.array(text.translate(bytes.maketrans(b"[],", b"   ")).replace(b"- ", b"  ").split(), np.float64)


def _check_trees(
    trees: int, childs: np.ndarray, features: np.ndarray, thresholds: np.ndarray, ends: np.ndarray, bins: np.ndarray
) -> None:
    nodes = len(childs) // trees
    if not nodes or nodes * trees != len(childs) or not len(childs) == len(features) == len(thresholds):
        raise ValueError("its lists do not fit each other")
    place = np.tile(np.arange(nodes), trees)
    inner = childs > 0  # the others are leaves
    if not ((childs[inner] > place[inner] + 1) & (childs[inner] < nodes)).all():
        raise ValueError("its childs lead out of their tree, or back")
    if features.max() >= FEATURES:
        raise ValueError(f"its featureIds reach {features.max():.0f}, but there are {FEATURES} features")
    if (len(ends) - 1) % len(childs) or len(ends) <= len(childs):
        raise ValueError("its edgeBoundaries do not fit its childs")
    if (np.diff(ends) < 0).any() or ends[-1] > len(bins):
        raise ValueError("its edgeBoundaries lead out of its edgeBins")
    if bins.max(initial=0) >= BINS:
        raise ValueError(f"its edgeBins reach {bins.max():.0f}, but a patch has {BINS} pixels")
