"""Settings of the classical methods and of what they share, with reasons and the published values (paper: section 4).

The defaults are for photographs of 640 x 480 pixels and were chosen on training images of COCO.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, Literal

from deepmask.bounds import Count, Inner, MadeOf, NotNegative, Positive, Real, Rising, Seed, Share, Some, Whole, Within


class BaselineError(ValueError):
    """A baseline cannot run as asked; the message says why."""


@dataclass(frozen=True)
class ForestConfig:
    """How a structured forest is trained; "published" are the settings of the publication's code."""

    trees: Count = 8  # published: 8, of which the detector evaluates 4 per position
    patches: Count = 50_000  # per tree, half of them near boundaries; published: 1,000,000, for little more accuracy
    images: Count = 200  # training images at most; published: the 200 of BSDS500's training set
    depth: Count = 64  # published: 64
    leaf: Count = 8  # patches in a leaf at least; published: 8
    fraction: Share = 0.25  # of the features, that a tree may use, so that trees differ; published: 1/4
    pairs: Count = 128  # pixel pairs that stand for a segmentation in a node; published: 256
    seed: Seed = 0


@dataclass(frozen=True)
class EdgesConfig:
    """The edge detector of the classical methods, and what it learns from."""

    model: str | None = None  # a forest in OpenCV's format, such as its published model.yml.gz; null: train one
    bsds500: str | None = None  # folder of BSDS500, to train on, as published; null: on masks of the training split
    scales: Some[Positive] = (0.5, 1.0, 2.0)  # of the image; published: the same
    forest: ForestConfig = field(default_factory=ForestConfig)


@dataclass(frozen=True)
class EdgeBoxesConfig:
    """Settings for 640 x 480 photographs; "published" are the defaults of the publication and its code.

    beta and eta were chosen on 85 training photographs: better there than the published .75 and 1 at 10, 100 and 1000
    boxes, and than the other published pair, .9 and .9996, at 10 and 100, while that one is a little better at 1000.
    """

    alpha: Inner = 0.65  # IoU of neighbouring windows of the search, which sets its step; published: .65
    beta: Share = 0.7  # IoU at which the worse of two boxes is dropped; published: .75, .9 for recall at high IoU
    eta: Share = 0.9998  # factor on beta after each box kept; published: 1, .9996 for average recall of 1000 boxes
    min_score: NotNegative = 0.01  # of boxes; published: .01
    min_edge: NotNegative = 0.1  # strength of edge pixels that count; published: .1
    merge: NotNegative = 0.5  # summed change of orientation at which an edge group ends; published: .5
    min_group: NotNegative = 0.5  # summed strength of edge groups that count; published: .5
    max_aspect: Annotated[float, Within(1)] = 3.0  # of boxes; published: 3
    min_area: NotNegative = 1000.0  # px^2 of boxes; published: 1000
    gamma: NotNegative = 2.0  # exponent of the affinity of edge groups; published: 2
    kappa: NotNegative = 1.5  # exponent of a box's size in the denominator of its score; published: 1.5


@dataclass(frozen=True)
class GeodesicConfig:
    """Settings for 640 x 480 photographs, chosen on training images unless a published value is named."""

    superpixels: Count = 1000  # more find smaller objects, but spend the list on them
    gain: Positive = 3.0  # on edge strengths, as our forest's are weak for a third power; published: 1
    power: Positive = 3.0  # crossing a border costs (gain x strength)^power + step; published: 3
    step: Positive = 0.002  # so that even a border without strength costs something; published: .002
    seed_area: Real = 0.5  # a seed is farthest by distance x area^this; 0, as published, prefers specks
    level_ratio: Share = 0.85  # two levels of one map are never closer in size, as the last tiers drop those
    largest: NotNegative = 0.75  # fraction of the image that a proposal may cover; published: .75
    smallest_inner: Share = 0.1  # and that one without a seed has to; published: .1
    # seeds, levels per map, and IoU at which proposals are duplicates, as the budget grows.  Published (by Hosang et
    # al., for seeds and levels): about 1, 2, 10, 33, 64, 131, 406, 616, 1298 and 2090 proposals
    tiers: Some[tuple[Count, Count, Positive]] = (
        (1, 1, 0.5),
        (1, 2, 0.5),
        (3, 2, 0.5),
        (8, 3, 0.6),
        (12, 4, 0.7),
        (18, 5, 0.7),
        (50, 5, 0.8),
        (70, 6, 0.85),
        (125, 7, 0.85),
        (150, 10, 0.85),
    )

    def __post_init__(self) -> None:
        for name in ("superpixels", "gain", "power", "step"):  # without a step, borders may cost nothing
            if getattr(self, name) <= 0:
                raise BaselineError(f"geodesic: {name} is {getattr(self, name)}; it has to be above 0")
        if not self.tiers or any(min(tier) <= 0 for tier in self.tiers):
            raise BaselineError("geodesic: tiers are triples of seeds, levels and IoU above 0, at least one")
        if any(later < earlier for pair in pairwise(self.tiers) for earlier, later in zip(*pair, strict=True)):
            raise BaselineError("geodesic: no number of a tier may be below that of the tier before")


@dataclass(frozen=True)
class RigorConfig:
    """Settings for 640 x 480 photographs, chosen on training images unless a published value is named."""

    superpixels: Count = 1000  # 1500 find slightly better masks, but worse boxes
    # a border of strength e costs exp(-e / sigma) + floor per pixel.  The largest sigma gives few and good segments,
    # the smaller ones more and smaller; they come in this order in the list
    sigmas: Some[Positive] = (0.1, 0.05, 0.025)
    floor: Positive = 0.002  # so that a strong border still costs its length
    # seeds as the budget grows; the last is the grid's size.  Published (by Hosang et al.): 1, 4, 9, 16, 25, 64 and
    # 100 seeds for about 44, 155, 313, 497, 700, 1423 and 1826 proposals
    seeds: Rising[Some[Count]] = (1, 4, 9, 16, 25, 64)
    lambdas: tuple[Positive, Positive, Count] = (1e-4, 0.5, 10)  # reward per pixel: lowest, highest, number; log-spaced
    # the same where colours count too, with both signs
    colour_lambdas: tuple[Positive, Positive, Count] = (0.005, 0.1, 5)
    colour_weight: Real = 0.2  # reward per pixel for each unit of Lab (0 to 1) nearer to the seed than the border
    window: Positive = 5.0  # half the side of a window about a seed, in mean sides of a superpixel
    smallest: NotNegative = 50.0  # px; no proposal is smaller
    largest: NotNegative = 0.95  # fraction of the image that a proposal may cover
    # proposals of this IoU are duplicates: what is distinct by the first comes first, the rest by the second follows
    overlaps: Rising[tuple[Positive, Positive]] = (0.85, 0.95)

    def __post_init__(self) -> None:
        for name in ("superpixels", "floor", "window"):
            if getattr(self, name) <= 0:
                raise BaselineError(f"rigor: {name} is {getattr(self, name)}; it has to be above 0")
        if not self.sigmas or min(self.sigmas) <= 0:
            raise BaselineError(f"rigor: sigmas are numbers above 0, at least one, not {self.sigmas}")
        if not self.seeds or self.seeds[0] < 1 or list(self.seeds) != sorted(set(self.seeds)):
            raise BaselineError(f"rigor: seeds are ascending numbers from 1 on, at least one, not {self.seeds}")
        for name in ("lambdas", "colour_lambdas"):
            low, high, number = getattr(self, name)
            if not 0 < low < high or number < 2:
                raise BaselineError(f"rigor: {name} are 0 < lowest < highest and a number from 2 on")
        if not 0 < self.overlaps[0] <= self.overlaps[1]:
            raise BaselineError(f"rigor: overlaps are two IoUs above 0, the lower first, not {self.overlaps}")


@dataclass(frozen=True)
class SelectiveSearchConfig:
    """Settings for 640 x 480 photographs; "published" are those of the fast version and its code."""

    colours: Some[Literal["rgb", "hsv", "lab"]] = ("hsv", "lab")  # published: the same
    scales: Some[Positive] = (100.0, 200.0)  # k of the segmentations, larger for fewer; published: 50, 100
    minimum_area: Whole = 100  # px of a superpixel, smaller ones are merged; published: k
    smoothing: NotNegative = 0.8  # px, sigma before the segmentation; published: .8
    similarities: Some[Annotated[str, MadeOf("CTSF")]] = (
        "CTSF",
        "TSF",
    )  # sums of colour, texture, size, fill; published
    minimum_side: Whole = 10  # px of a proposal's box; published: 20
    seed: Seed = 0  # of the random ranking


@dataclass(frozen=True)
class MCGConfig:
    """Settings for 640 x 480 photographs, chosen on training images; scales are those of the edge detector."""

    superpixels: Count = 2000
    # of the scales in the superpixels and in the hierarchy of all scales
    weights: tuple[NotNegative, ...] = (0.0, 1.0, 2.0)
    regions: tuple[Whole, ...] = (300, 500, 0)  # that a scale cuts the image into before alignment; 0: the superpixels
    vectors: tuple[Count, Count] = (16, 8)  # of the spectral step, in the hierarchy of all scales and in those of one
    gains: tuple[NotNegative, NotNegative] = (2.0, 1.0)  # of the spectral step; 0: without it
    # candidates of 1, 2, 3 and 4 regions, per hierarchy
    limits: tuple[Whole, Whole, Whole, Whole] = (1500, 700, 300, 100)
    overlap: Positive = 0.9  # IoU at which candidates are duplicates; published: .95
    candidates: Count = 3000  # that are left for the diverse ranking
    diversity: NotNegative = 0.8  # weight of the score against overlap with better ones; published: .7
    train_images: Count = 200  # whose candidates the ranking learns from
    samples: tuple[Whole, Whole, Whole] = (100, 100, 150)  # candidates an image, of IoU above .5, above .25, and below
    trees: Count = 50
    leaf: Count = 15  # candidates in a leaf at least
    seed: Seed = 0

    def __post_init__(self) -> None:
        for name in ("superpixels", "candidates", "train_images", "trees", "leaf"):
            if getattr(self, name) < 1:
                raise BaselineError(f"mcg: {name} is {getattr(self, name)}; it has to be 1 or more")
        if min(self.weights, default=0) < 0 or not sum(self.weights):
            raise BaselineError(
                f"mcg: weights are one number per scale, none below 0 and not all 0, not {self.weights}"
            )
        if len(self.regions) != len(self.weights) or min(self.regions) < 0:
            raise BaselineError(f"mcg: regions are {len(self.weights)} numbers from 0 on, one per weight")
        if min(self.limits) < 0 or not any(self.limits):
            raise BaselineError(f"mcg: limits are four numbers from 0 on, not all 0, not {self.limits}")


@dataclass(frozen=True)
class BaselinesConfig:
    """One section a method."""

    edgeboxes: EdgeBoxesConfig = field(default_factory=EdgeBoxesConfig)
    geodesic: GeodesicConfig = field(default_factory=GeodesicConfig)
    rigor: RigorConfig = field(default_factory=RigorConfig)
    selectivesearch: SelectiveSearchConfig = field(default_factory=SelectiveSearchConfig)
    mcg: MCGConfig = field(default_factory=MCGConfig)
