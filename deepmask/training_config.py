"""The numbers of the network, of its training patches and of its optimisation (paper: sections 3.2 and 3.4).

Sections `model`, `sampling`, `pretrain`, `train` and `upsampling` of `params.yaml`; see `deepmask.config`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from deepmask.bounds import (
    Count,
    Momentum,
    MultipleOf,
    NotNegative,
    Octave,
    Optimiser,
    Positive,
    Precision,
    Rising,
    Seed,
    Share,
    Whole,
)


@dataclass(frozen=True)
class ModelConfig:
    """The network of section 3.4; `rank` null is DeepMaskFull."""

    width: Positive = 0.25  # fraction of VGG-A's channels; paper: 1
    score_hidden: tuple[Count, Count] = (128, 256)  # paper: (512, 1024)
    rank: Count | None = 128  # units between the two linear layers of the mask head; paper: 512, Full: none
    dropout: Share = 0.5  # after each hidden layer of the score head; paper: .5
    init: Literal["he", "uniform"] = "he"  # "uniform" is the paper's; "he" lets a trunk without ImageNet weights start


@dataclass(frozen=True)
class SamplingConfig:
    """How training patches are drawn (section 3.2 and 3.4; what the paper leaves open has its reason here)."""

    # masks: "uniform" is category first, then instance (released code)
    categories: Literal["uniform", "annotations"] = "uniform"
    min_area: NotNegative = 25.0  # px^2; released code: 100 at 640 px images
    min_side: NotNegative = 3.0  # px; released code: 5 at 640 px images
    near_negatives: Share = 0.5  # fraction of negatives drawn around objects; 0 is uniform over the image
    negative_octaves: Rising[tuple[Octave, Octave]] = (-2.0, 1.0)  # log2 scales of negatives; released code: -3 to 2


@dataclass(frozen=True)
class PretrainConfig:
    """What stands in for ImageNet: classification of drawn objects of classes that the study does not use."""

    # "imagenet": torchvision's VGG-A, the paper's start; null: train on drawn classes
    weights: Literal["imagenet"] | None = None
    classes: Count = 96
    samples: Count = 12000  # drawn objects, each seen once
    optimiser: Optimiser = "muon"  # as in training
    held_out: Count = 480  # further objects that accuracy is measured on
    size: Count = 64  # pixels of a drawn object
    batch: Count = 32
    lr: Positive = 0.0015
    warmup: Count = 50  # steps
    workers: Whole = 0  # processes per rank that draw objects; 0: the training process draws them itself
    seed: Seed = 0


@dataclass(frozen=True)
class TrainConfig:
    """Optimisation of Eq. 1 (section 3.2 and 3.4).

    Larger batches, for many GPUs or full use of one: Eq. 1 is a sum over the batch, so that k times the batch at the
    same `lr` is a step k times as long, which is the linear scaling rule; `weight_decay` times k keeps the decay per
    patch, and a `warmup` of a thousand steps spares the first steps that length.  `samples` stays.
    """

    samples: Count = 18000  # patches, half of them in mask batches; paper: not said (5 days on a K40m)
    batch: Annotated[Count, MultipleOf(2)] = 32  # paper: 32
    optimiser: Optimiser = "muon"  # paper: "sgd"; muon reaches in 6,000 patches what adamw reaches in 50,000 or more
    lr: Positive = 0.0015  # paper: .001 for SGD on the sum over the batch
    momentum: Momentum = 0.9  # paper: .9; beta1 of adamw
    weight_decay: NotNegative = 0.00005  # paper: .00005
    schedule: Literal["cosine", "constant"] = "cosine"  # paper: "constant"
    warmup: Whole = 50  # steps of linear warm-up; paper: none
    score_weight: Positive = 0.03125  # lambda of Eq. 1; paper: 1/32
    mask_negatives: bool = False  # half of each mask batch negatives with empty masks; paper: no, to generalise
    downsample_targets: bool = False  # masks compared at the resolution of the output; paper: no, slightly worse
    eval_every: Count = 140  # steps between looks at held-out patches
    eval_patches: Count = 100  # held-out patches per look and kind
    checkpoint_every: Count = 200  # steps between checkpoints
    workers: Whole = 0  # loader processes per rank; 0: patches are cut by the training process itself
    # patches are cut by the "host", one by one, or the "device", in batches; auto: on a GPU there
    cut: Literal["auto", "host", "device"] = "auto"
    compile: bool = False  # network and loss through torch.compile; pays on a GPU
    precision: Precision = "auto"  # "auto": bf16 where the processor has it natively, else fp32
    seed: Seed = 0


@dataclass(frozen=True)
class UpsamplingConfig:
    """A trained layer in the place of the bilinear upsampling (section 3.4); the paper gives no details."""

    samples: Count = 1024  # mask patches, for the few values of a kernel
    steps: Count = 100  # of L-BFGS at most, which settles in about 30
    seed: Seed = 1  # of the patches, which are others than those of training, and of the random start
