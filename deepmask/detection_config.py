"""Settings of the detector, with reasons and the values of the Fast R-CNN publication (paper: section 4, Detection).

The paper names the detector and not its settings; "published" are those of the publication and its code for VGG-16
trained on PASCAL VOC 2007, whose result with SelectiveSearch is the one that the paper compares with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from deepmask.bounds import (
    Count,
    Momentum,
    NotNegative,
    Optimiser,
    Positive,
    Precision,
    Rising,
    Seed,
    Share,
    Some,
    Whole,
)

SOURCES = ("selectivesearch", "deepmask")  # of the proposals of Figure 5, by their key


class DetectionError(ValueError):
    """The detector cannot run as asked; the message says why and what to change."""


@dataclass(frozen=True)
class DetectionConfig:
    """Fast R-CNN: network, training, and what is kept of its output."""

    # "vgg16": ImageNet weights, published; "study": what the networks of the study start from
    trunk: Literal["study", "vgg16"] = "study"
    frozen: Whole = 0  # first convolutions that are not trained; published: 4 of 13, which are generic
    shorter: Count = 240  # px that the shorter side of an image is scaled to; published: 600
    longer: Count = 1000  # px that the longer side does not exceed; published: 1000
    pooling: Literal["max", "align"] = "max"  # of features in a cell of an RoI, as published; or bilinear samples
    pooled: Count = 7  # cells along a side of an RoI; published: 7
    hidden: tuple[Count, Count] = (256, 256)  # published: (4096, 4096), from ImageNet too
    dropout: Share = 0.5  # after each hidden layer; published: .5

    proposals: Count = 2000  # of a training image, at most; published: about 2000
    images: Count = 2  # in a batch; published: 2
    rois: Count = 128  # in a batch; published: 128
    foreground: Share = 0.25  # of the RoIs; published: .25
    foreground_iou: Share = 0.5  # with an object, at least; published: .5
    background_iou: Rising[tuple[Share, Share]] = (0.1, 0.5)  # from, below; published: .1, .5, for the hard ones
    iterations: Count = 400  # published: 40000
    optimiser: Optimiser = "muon"  # published: "sgd"
    lr: Positive = 0.001  # published: .001
    momentum: Momentum = 0.9  # published: .9
    weight_decay: NotNegative = 0.0005  # published: .0005
    schedule: Literal["cosine", "step"] = "cosine"  # published: "step", a tenth of the rate in the last quarter
    warmup: Whole = 20  # iterations of linear warm-up; published: none
    checkpoint_every: Count = 200  # iterations
    workers: Whole = 0  # loader processes per rank
    precision: Precision = "auto"  # "auto": bf16 where the processor has it natively, else fp32
    seed: Seed = 0

    # proposals of a test image; Figure 5: 10 to 2000
    counts: Rising[Some[Count]] = (10, 20, 50, 100, 200, 500, 1000, 2000)
    nms: NotNegative = 0.3  # IoU above which the worse detection of a class is dropped; published: .3
    score: Share = 0.05  # detections score above; published: .05
    detections: Count = 100  # of an image, at most; published: 100

    def __post_init__(self) -> None:
        for name, known in {
            "trunk": ("study", "vgg16"),
            "pooling": ("max", "align"),
            "schedule": ("cosine", "step"),
        }.items():
            if getattr(self, name) not in known:
                raise DetectionError(f"detection.{name}: expected {' or '.join(known)}, got {getattr(self, name)!r}")
        if self.images < 1 or self.rois % self.images:
            raise DetectionError(f"detection.rois: {self.rois} RoIs are not shared evenly by {self.images} images")
        if list(self.counts) != sorted(set(self.counts)) or not self.counts or self.counts[0] < 1:
            raise DetectionError(f"detection.counts: expected ascending numbers from 1 on, got {self.counts}")
