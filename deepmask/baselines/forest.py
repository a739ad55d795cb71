"""Training of the structured edge forest that `deepmask.baselines.edges` evaluates.

After Dollar and Zitnick, "Fast Edge Detection Using Structured Forests" (TPAMI 2015, sections 3 and 4).  The forest
maps a 32 x 32 patch of the image to the boundaries of the segmentation in its 16 x 16 centre.  To choose a split, the
segmentations in a node are mapped to the vectors that say which pairs of their pixels are in one segment, and the sign
of the first principal component of these gives two classes (section 3.2); a leaf keeps one representative segmentation.
The feature channels come from OpenCV itself, so that training and detection see the same numbers.

Samples are pairs of an image (H, W, 3) uint8 RGB and a list of label maps (H, W) int, one per annotator.
"""

from __future__ import annotations

import dataclasses
import gzip
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import scipy.io
from PIL import Image

from deepmask import files
from deepmask.baseline_config import BaselineError, ForestConfig
from deepmask.baselines import forest_trees
from deepmask.baselines.forest_trees import Tree
from deepmask.data.coco import FORMATS, InstanceDataset

Sample = tuple[np.ndarray, list[np.ndarray]]

# The layout below is what OpenCV's detector assumes; its model.yml.gz has the same options.
PATCH, INNER = 32, 16  # px, sides of the patch that is seen and of the segmentation in its centre
SHRINK = 2  # px per side of a feature cell; the detector's stride as well
CELLS = PATCH // SHRINK  # cells per side of a patch
ORIENTATIONS = 4  # of gradient histograms at each of two scales
CHANNELS = 2 * (ORIENTATIONS + 1) + 3  # colours, gradient magnitudes, histograms
NORMALISATION = 4  # px, radius of gradient normalisation
SMOOTHING = (1, 4)  # cells, radii of triangle filters for plain features and for self-similarity
GRID = 5  # positions per side whose differences are the self-similarity features
NEAR = 8  # px; a patch is positive if its centre is closer than this to a boundary
_FIXED = 8192  # channels, all below 4, are kept as 16 bit fixed point in units of 1 / _FIXED


@dataclass(frozen=True, eq=False)
class LazySamples(Sequence[Sample]):
    """Samples that are loaded when asked for."""

    keys: Sequence
    load: Callable[..., Sample]

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Sample:
        return self.load(self.keys[index])


def bsds_samples(folder: str | Path, split: str = "train") -> LazySamples:
    """The samples of a split of BSDS500, with 4 to 9 annotators each; `folder` is "BSDS500" or the one that has it.

    Raises BaselineError if a folder or file is missing or unreadable.
    """
    root = next((f for f in (Path(folder), Path(folder) / "BSDS500") if (f / "data").is_dir()), None)
    images = () if root is None else tuple(sorted((root / "data" / "images" / split).glob("*.jpg")))
    if not images:
        raise BaselineError(f"{folder}: no folder BSDS500/data/images/{split} with images here; download BSDS500")

    def load(path: Path) -> Sample:
        truth = root / "data" / "groundTruth" / split / f"{path.stem}.mat"
        try:
            with Image.open(path, formats=FORMATS) as file:
                image = np.asarray(file.convert("RGB"))
            cells = scipy.io.loadmat(truth)["groundTruth"][0]
            return image, [cell["Segmentation"][0, 0].astype(np.int32) for cell in cells]
        except Exception as error:  # a damaged file may raise anything from within a decoder
            raise BaselineError(f"{truth}: no readable pair of image and segmentations ({error})") from None

    return LazySamples(images, load)


def mask_samples(dataset: InstanceDataset, count: int, seed: int = 0) -> LazySamples:
    """Samples of `count` images with objects, spread evenly over the data set, with one label map each.

    Each object is a label of its own on background 0; smaller ones are in front.  Crowds are background.
    """
    annotated = np.unique(dataset.ann_image[~dataset.ann_crowd])
    bounds = np.linspace(0, len(annotated), min(count, len(annotated)) + 1).astype(int)
    chosen = annotated[np.random.default_rng(seed).integers(bounds[:-1], bounds[1:])] if len(annotated) else annotated

    def load(i: int) -> Sample:
        image = dataset.image(i)
        objects = [a for a in dataset.annotations(i) if not dataset.ann_crowd[a]]
        shapes = sorted((dataset.mask(a) for a in objects), key=lambda mask: -int(mask.sum()))
        labels = np.zeros(image.shape[:2], np.int32)
        for label, mask in enumerate(shapes, 1):
            labels[mask] = label
        return image, [labels]

    return LazySamples(chosen.tolist(), load)


def train(samples: Sequence[Sample], path: str | Path, config: ForestConfig = ForestConfig(), workers: int = 1) -> None:
    """Train a forest on at most `config.images` samples and write it to `path` (".yml.gz"), whole or not at all.

    The bytes do not depend on the number of workers.  Raises BaselineError if no sample shows a boundary.
    """
    count = min(len(samples), config.images)
    with ThreadPoolExecutor(workers) as pool:  # OpenCV and the compiled parts run side by side in threads
        scenes = list(pool.map(lambda i: _Scene.of(*samples[i], config, i, count), range(count)))
        bank = _Bank.of(scenes, config.trees)
        del scenes
        trees = list(pool.map(lambda tree: _tree(bank, config, tree), range(config.trees)))
    _write(Path(path), trees)


@dataclass(frozen=True, eq=False)
class _Scene:
    """What the trees need of one image of h x w cells."""

    channels: np.ndarray  # (h, w, 2 * CHANNELS) int16 fixed point, smoothed for plain features, for self-similarity
    corners: list[np.ndarray]  # per tree (n,) int64 first cell of the patch, y * w + x
    patches: list[np.ndarray]  # per tree (n, INNER * INNER) uint8 segmentations

    @classmethod
    def of(cls, image: np.ndarray, labels: list[np.ndarray], config: ForestConfig, index: int, count: int) -> _Scene:
        """The share of image `index` of `count`: as many patches near as off boundaries, spread over annotators."""
        if not labels or any(label.shape != image.shape[:2] for label in labels):
            shapes = [label.shape for label in labels]
            raise BaselineError(f"training image {index} is {image.shape[:2]}, its label maps are {shapes}")
        channels = _channels(image)
        quota = max(1, math.ceil(config.patches / (2 * count * len(labels))))
        corners, patches = ([[] for _ in range(config.trees)] for _ in range(2))
        for number, label in enumerate(labels if min(image.shape[:2]) >= INNER else ()):
            rng = np.random.default_rng([config.seed, index, number])
            windows = np.lib.stride_tricks.sliding_window_view(label, (INNER, INNER))[::SHRINK, ::SHRINK]
            for found in _cells(label):
                for tree in range(config.trees):
                    drawn = rng.choice(found, min(quota, len(found)), replace=False, shuffle=False)
                    corners[tree].append(drawn[:, 0] * channels.shape[1] + drawn[:, 1])
                    patches[tree].append(forest_trees.relabelled(windows[drawn[:, 0], drawn[:, 1]]))
        none = np.zeros(0, np.int64), np.zeros((0, INNER * INNER), np.uint8)
        corners, patches = (
            [np.concatenate([nothing, *parts]) for parts in trees]
            for nothing, trees in zip(none, (corners, patches), strict=True)
        )
        return cls(channels, corners, patches)


@dataclass(frozen=True, eq=False)
class _Bank:
    """The scenes in flat arrays, and per tree where its N patches are."""

    channels: np.ndarray  # (size,) int16
    starts: list[np.ndarray]  # per tree (N,) int64 index into channels of the patch's first cell
    strides: list[np.ndarray]  # per tree (N,) int64 step from one row of cells to the next
    patches: list[np.ndarray]  # per tree (N, INNER * INNER) uint8

    @classmethod
    def of(cls, scenes: list[_Scene], trees: int) -> _Bank:
        if not all(any(scene.patches[tree].any() for scene in scenes) for tree in range(trees)):
            raise BaselineError("the edge forest has nothing to learn from: no boundary in its training images")
        offsets = np.cumsum([0, *(scene.channels.size for scene in scenes)])
        flat = np.concatenate([scene.channels.ravel() for scene in scenes])
        widths = [2 * CHANNELS * scene.channels.shape[1] for scene in scenes]
        starts, strides, patches = [], [], []
        for tree in range(trees):
            corners = [scene.corners[tree] for scene in scenes]
            starts.append(
                np.concatenate([offset + 2 * CHANNELS * c for offset, c in zip(offsets[:-1], corners, strict=True)])
            )
            strides.append(np.repeat(widths, [len(c) for c in corners]))
            patches.append(np.concatenate([scene.patches[tree] for scene in scenes]))
        return cls(flat, starts, strides, patches)


def _channels(image: np.ndarray) -> np.ndarray:
    """(h, w, 2 * CHANNELS) int16 channels of the image in its border of a quarter patch."""
    border = (PATCH - INNER) // 2
    padded = cv2.copyMakeBorder(image, border, border, border, border, cv2.BORDER_REFLECT).astype(np.float32) / 255
    channels = np.zeros((padded.shape[0] // SHRINK, padded.shape[1] // SHRINK, CHANNELS), np.float32)
    getter = cv2.ximgproc.createRFFeatureGetter()
    getter.getFeatures(padded, channels, NORMALISATION, 0, SHRINK, CHANNELS, ORIENTATIONS)  # fills `channels`
    smooth = []
    for radius in SMOOTHING:
        triangle = np.convolve(*[np.full(radius + 1, 1 / (radius + 1))] * 2).astype(np.float32)
        smooth.append(cv2.sepFilter2D(channels, -1, triangle, triangle))
    return np.minimum(np.rint(np.concatenate(smooth, axis=2) * _FIXED), np.iinfo(np.int16).max).astype(np.int16)


def _features() -> np.ndarray:
    """(F, 4) int64 row and offset of the channel that is a feature, and of the one subtracted from it or -1, -1."""
    step = 2 * CHANNELS
    plain = [(y, x * step + z, -1, -1) for z in range(CHANNELS) for x in range(CELLS) for y in range(CELLS)]
    half = round(CELLS / (2 * GRID))
    places = [int((i + 1) * (CELLS + 2 * half - 1) / (GRID + 1) - half + 0.5) for i in range(GRID)]
    grid = [(y, x * step) for x in places for y in places]
    similar = [
        (grid[i][0], grid[i][1] + z, grid[j][0], grid[j][1] + z)
        for z in range(CHANNELS, 2 * CHANNELS)
        for i in range(GRID * GRID)
        for j in range(i + 1, GRID * GRID)
    ]
    return np.array(plain + similar, np.int64)


def _cells(label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, 2) int64 y, x of the patches near boundaries of a label map, and of those off them."""
    rows, columns = ((side - INNER) // SHRINK + 1 for side in label.shape)
    inside = np.uint8(~boundary(label))
    distance = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)  # huge without any boundary
    centre = INNER // 2
    near = distance[centre::SHRINK, centre::SHRINK][:rows, :columns] < NEAR
    return np.argwhere(near), np.argwhere(~near)


def boundary(label: np.ndarray) -> np.ndarray:
    """(..., H, W) bool pixels with a horizontal or vertical neighbour of another label."""
    edge = np.zeros(label.shape, bool)
    across = label[..., 1:] != label[..., :-1]
    down = label[..., 1:, :] != label[..., :-1, :]
    edge[..., 1:] |= across
    edge[..., :-1] |= across
    edge[..., 1:, :] |= down
    edge[..., :-1, :] |= down
    return edge


def _tree(bank: _Bank, config: ForestConfig, number: int) -> Tree:
    rng = np.random.default_rng([config.seed, number])
    features = _features()
    usable = rng.permutation(len(features))[: max(1, round(config.fraction * len(features)))]
    values = forest_trees.gather(bank.channels, bank.starts[number], bank.strides[number], features[usable])
    tries, seed = max(1, round(math.sqrt(len(usable)))), int(rng.integers(2**31))
    tree = forest_trees.grow(values, bank.patches[number], tries, config.pairs, config.leaf, config.depth, seed)
    feature = np.where(tree.left > 0, usable[tree.feature], 0)
    return dataclasses.replace(tree, feature=feature, threshold=tree.threshold / _FIXED)


def _write(path: Path, trees: list[Tree]) -> None:
    """Write the trees in OpenCV's format, each padded to the length of the longest."""
    length = max(len(tree.left) for tree in trees)
    options = {
        "stride": SHRINK,
        "shrinkNumber": SHRINK,
        "patchSize": PATCH,
        "patchInnerSize": INNER,
        "numberOfGradientOrientations": ORIENTATIONS,
        "gradientSmoothingRadius": 0,
        "regFeatureSmoothingRadius": SMOOTHING[0] * SHRINK,
        "ssFeatureSmoothingRadius": SMOOTHING[1] * SHRINK,
        "gradientNormalizationRadius": NORMALISATION,
        "selfsimilarityGridSize": GRID,
        "numberOfTrees": len(trees),
        "numberOfTreesToEvaluate": min(4, len(trees)),
    }
    lines = ["%YAML:1.0", "---", "options:", *(f"    {key}: {value}" for key, value in options.items())]
    for key, name in (("childs", "left"), ("featureIds", "feature"), ("thresholds", "threshold")):
        lines.append(f"{key}:")
        for tree in trees:
            lines.append(_sequence("    - ", np.pad(getattr(tree, name), (0, length - len(tree.left))).tolist()))
    counts, bins = [], []
    for tree in trees:
        edges = boundary(tree.patch.reshape(-1, INNER, INNER)) & (tree.left == 0)[:, None, None]
        edges = edges.transpose(0, 2, 1).reshape(len(edges), -1)  # a bin is column * INNER + row
        counts.append(np.pad(edges.sum(axis=1), (0, length - len(edges))))
        bins += np.nonzero(edges)[1].tolist()
    ends = np.cumsum(np.concatenate(counts)).tolist()
    for key, values in (("edgeBoundaries", [0, *ends]), ("edgeBins", bins)):
        lines.append(_sequence(f"{key}: ", values))
    with files.replacing(path) as temporary:
        temporary.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode(), mtime=0))


def _sequence(start: str, values: list) -> str:
    """A YAML sequence in lines that are short enough for OpenCV's reader."""
    rows = [", ".join(map(repr, values[i : i + 16])) for i in range(0, len(values), 16)]
    return f"{start}[ " + ",\n        ".join(rows) + " ]"
