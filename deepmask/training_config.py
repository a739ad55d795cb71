"""The numbers of the network, of its training patches and of its optimisation (paper: sections 3.2 and 3.4).

Sections `model`, `sampling`, `pretrain`, `train` and `upsampling` of `params.yaml`; see `deepmask.config`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelConfig:
    """The network of section 3.4; `rank` null is DeepMaskFull."""

    width: float = 0.25  # fraction of VGG-A's channels; paper: 1
    score_hidden: tuple[int, int] = (128, 256)  # paper: (512, 1024)
    rank: int | None = 128  # units between the two linear layers of the mask head; paper: 512, Full: none
    dropout: float = 0.5  # after each hidden layer of the score head; paper: .5
    init: str = "he"  # "uniform" is the paper's; "he" lets a trunk without ImageNet weights start


@dataclass(frozen=True)
class SamplingConfig:
    """How training patches are drawn (section 3.2 and 3.4; what the paper leaves open has its reason here)."""

    categories: str = "uniform"  # masks: category first, then instance (released code); or "annotations"
    min_area: float = 25.0  # px^2; released code: 100 at 640 px images
    min_side: float = 3.0  # px; released code: 5 at 640 px images
    near_negatives: float = 0.5  # fraction of negatives drawn around objects; 0 is uniform over the image
    negative_octaves: tuple[float, float] = (-2.0, 1.0)  # log2 scales of negatives; released code: -3 to 2


@dataclass(frozen=True)
class PretrainConfig:
    """What stands in for ImageNet: classification of drawn objects of classes that the study does not use."""

    weights: str | None = None  # "imagenet": torchvision's VGG-A, the paper's start; null: train on drawn classes
    classes: int = 96
    samples: int = 12000  # drawn objects, each seen once
    optimiser: str = "muon"  # as in training
    held_out: int = 480  # further objects that accuracy is measured on
    size: int = 64  # pixels of a drawn object
    batch: int = 32
    lr: float = 0.0015
    warmup: int = 50  # steps
    workers: int = 0  # processes per rank that draw objects; 0: the training process draws them itself
    seed: int = 0


@dataclass(frozen=True)
class TrainConfig:
    """Optimisation of Eq. 1 (section 3.2 and 3.4).

    Larger batches, for many GPUs or full use of one: Eq. 1 is a sum over the batch, so that k times the batch at the
    same `lr` is a step k times as long, which is the linear scaling rule; `weight_decay` times k keeps the decay per
    patch, and a `warmup` of a thousand steps spares the first steps that length.  `samples` stays.
    """

    samples: int = 18000  # patches, half of them in mask batches; paper: not said (5 days on a K40m)
    batch: int = 32  # paper: 32
    optimiser: str = "muon"  # paper: "sgd"; muon reaches in 6,000 patches what adamw reaches in 50,000 or more
    lr: float = 0.0015  # paper: .001 for SGD on the sum over the batch
    momentum: float = 0.9  # paper: .9; beta1 of adamw
    weight_decay: float = 0.00005  # paper: .00005
    schedule: str = "cosine"  # paper: "constant"
    warmup: int = 50  # steps of linear warm-up; paper: none
    score_weight: float = 0.03125  # lambda of Eq. 1; paper: 1/32
    mask_negatives: bool = False  # half of each mask batch negatives with empty masks; paper: no, to generalise
    downsample_targets: bool = False  # masks compared at the resolution of the output; paper: no, slightly worse
    eval_every: int = 140  # steps between looks at held-out patches
    eval_patches: int = 100  # held-out patches per look and kind
    checkpoint_every: int = 200  # steps between checkpoints
    workers: int = 0  # loader processes per rank; 0: patches are cut by the training process itself
    cut: str = "auto"  # patches are cut by the "host", one by one, or the "device", in batches; auto: on a GPU there
    compile: bool = False  # network and loss through torch.compile; pays on a GPU
    precision: str = "auto"  # "auto": bf16 where the processor has it natively, else fp32
    seed: int = 0


@dataclass(frozen=True)
class UpsamplingConfig:
    """A trained layer in the place of the bilinear upsampling (section 3.4); the paper gives no details."""

    samples: int = 1024  # mask patches, for the few values of a kernel
    steps: int = 100  # of L-BFGS at most, which settles in about 30
    seed: int = 1  # of the patches, which are others than those of training, and of the random start
