"""The DeepMask network and its loss (paper: sections 3.1, 3.2 and 3.4, Equation 1).

A VGG-A trunk without its last pooling and its fully connected layers feeds two heads: the mask head, whose two linear
layers with nothing in between are a low-rank version of one pixel classifier per output (`rank=None` is the full-rank
DeepMaskFull), and the score head.  The same weights run on single patches (training) and on whole images (inference):
the fully connected layers are then convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepmask.config import ModelConfig
from deepmask.geometry import Geometry

VGG_A = ((64,), (128,), (256, 256), (512, 512), (512, 512))  # channels of the 3x3 convolutions between the pools
IMAGENET_MEAN = (0.485, 0.456, 0.406)  # RGB in [0, 1], of the torchvision weights
IMAGENET_STD = (0.229, 0.224, 0.225)
GRAY = 128  # uint8 value around the image, the half gray of the released code


class Pool(nn.MaxPool2d):
    """A 2x2 max-pool; where no gradient is asked for on a processor, without the places of the maxima.

    PyTorch's own always notes them, which takes three times as long.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H // 2, W // 2)."""
        if x.device.type != "cpu" or torch.is_grad_enabled():
            return super().forward(x)
        height, width = (side // 2 * 2 for side in x.shape[-2:])
        x = torch.maximum(x[..., 0:height:2, :width], x[..., 1:height:2, :width])
        return torch.maximum(x[..., 0::2], x[..., 1::2])


class Trunk(nn.Sequential):
    """The shared layers: VGG-A's eight 3x3 convolutions with the first `pools` of its five 2x2 max-pools.

    (N, 3, H, W) normalised -> (N, channels, H // 2**pools, W // 2**pools).  Layer names follow torchvision's `vgg11`
    order, so its ImageNet weights load by position (`load_vgg_a`).
    """

    def __init__(self, width: float, pools: int) -> None:
        layers: list[nn.Module] = []
        channels = 3
        for group, sizes in enumerate(VGG_A):
            for size in sizes:
                out = max(1, round(size * width))
                layers += [nn.Conv2d(channels, out, 3, padding=1), nn.ReLU(inplace=True)]
                channels = out
            if group < pools:
                # pooling before the ReLU gives the same values and spares three quarters of the ReLU
                layers.insert(len(layers) - 1, Pool(2))
        super().__init__(*layers)
        self.channels = channels

    @property
    def convolutions(self) -> list[nn.Conv2d]:
        """The convolutions in order, conv1 to conv8."""
        return [layer for layer in self if isinstance(layer, nn.Conv2d)]

    def load_vgg_a(self, vgg: nn.Module) -> None:
        """Copy the convolutions of a torchvision `vgg11` (full width) into this trunk (paper: section 3.1)."""
        sources = [layer for layer in vgg.features if isinstance(layer, nn.Conv2d)]
        for ours, theirs in zip(self.convolutions, sources, strict=True):
            ours.load_state_dict(theirs.state_dict())


class MaskHead(nn.Module):
    """1x1 convolution and ReLU, then linear pixel classifiers that each see the whole feature map (paper: 3.1)."""

    def __init__(self, channels: int, features: int, mask: int, rank: int | None) -> None:
        super().__init__()
        self.features, self.mask = features, mask
        self.conv = nn.Conv2d(channels, channels, 1)
        inputs = channels * features**2
        self.low_rank = nn.Linear(inputs, rank) if rank else nn.Identity()
        self.pixels = nn.Linear(rank or inputs, mask**2)

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, C, f, f) -> mask logits (N, mask, mask)."""
        x = F.relu(self.conv(x)).flatten(1)
        return self.pixels(self.low_rank(x)).unflatten(1, (self.mask, self.mask))

    def at(self, maps: Sequence[Tensor], index: Tensor, rows: Tensor, cols: Tensor, chunk: int = 512) -> Tensor:
        """Mask logits (N, mask, mask) of the cells (rows, cols) of the feature maps `index`, (N,) int64 each.

        `maps`: (1, C, H, W) each.  Only the asked cells are computed; `dense` computes all and gives the same numbers.
        The windows are gathered with channels last, as the maps lie in memory, and so are the weights.
        """
        maps = [F.relu(self.conv(x))[0].permute(1, 2, 0) for x in maps]
        places = torch.cat([x.flatten(0, 1) for x in maps])  # those of all maps, C
        before = [0, *accumulate(len(x) * len(x[0]) for x in maps[:-1])]
        before, width = torch.tensor([before, [len(x[0]) for x in maps]], device=rows.device)[:, index, None]
        side = torch.arange(self.features, device=rows.device)
        windows = before + (rows[:, None] + side.repeat_interleave(self.features)) * width
        windows += cols[:, None] + side.repeat(self.features)  # N, f * f

        wide = self.low_rank if isinstance(self.low_rank, nn.Linear) else self.pixels
        weight = _as_kernel(wide, self.features).to(places.dtype).permute(0, 2, 3, 1).flatten(1)
        masks = []
        for part in windows.split(chunk):
            x = places.index_select(0, part.flatten()).view(len(part), weight.shape[1])
            x = F.linear(x, weight, wide.bias)
            masks.append(x if wide is self.pixels else self.pixels(x))
        return torch.cat(masks).unflatten(1, (self.mask, self.mask))

    def dense(self, x: Tensor) -> Tensor:
        """Mask logits (R, S, mask, mask) of every cell of one feature map (1, C, H, W) (paper: section 3.3)."""
        x = F.relu(self.conv(x))
        if isinstance(self.low_rank, nn.Linear):
            x = F.conv2d(x, _as_kernel(self.low_rank, self.features), self.low_rank.bias)
            x = F.conv2d(x, _as_kernel(self.pixels, 1), self.pixels.bias)
        else:
            x = F.conv2d(x, _as_kernel(self.pixels, self.features), self.pixels.bias)
        return x[0].permute(1, 2, 0).unflatten(2, (self.mask, self.mask))


class ScoreHead(nn.Module):
    """2x2 max-pool, two fully connected layers with ReLU and dropout, one objectness logit (paper: 3.1, 3.4)."""

    def __init__(self, channels: int, features: int, hidden: tuple[int, int], dropout: float) -> None:
        super().__init__()
        self.side = features // 2
        self.fc1 = nn.Linear(channels * self.side**2, hidden[0])
        self.fc2 = nn.Linear(hidden[0], hidden[1])
        self.out = nn.Linear(hidden[1], 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, C, f, f) -> score logits (N,)."""
        return self._classify(self.fc1(F.max_pool2d(x, 2).flatten(1))).squeeze(-1)

    def dense(self, x: Tensor) -> Tensor:
        """Score logits (R, S) of every cell of one feature map (1, C, H, W).

        The interleaving of section 3.3 (pool the shifted copies of the map, interleave their outputs) in one pass:
        a cell's pool reads features i + 2a and i + 2a + 1, which a stride-1 pool followed by a kernel of dilation 2
        reads for all cells at once.
        """
        x = F.conv2d(F.max_pool2d(x, 2, stride=1), _as_kernel(self.fc1, self.side), self.fc1.bias, dilation=2)
        return self._classify(x[0].permute(1, 2, 0)).squeeze(-1)

    def _classify(self, x: Tensor) -> Tensor:
        return self.out(self.dropout(F.relu(self.fc2(self.dropout(F.relu(x))))))


class DeepMask(nn.Module):
    """Trunk, mask head and score head (paper: Figure 1, top); takes RGB with values 0 to 255.

    >>> sum(p.numel() for p in DeepMask(Geometry(), PAPER).parameters())
    75844545
    """

    def __init__(self, geometry: Geometry, config: ModelConfig) -> None:
        super().__init__()
        self.geometry, self.config = geometry, config
        self.trunk = Trunk(config.width, geometry.pools)
        self.mask_head = MaskHead(self.trunk.channels, geometry.features, geometry.mask, config.rank)
        self.score_head = ScoreHead(self.trunk.channels, geometry.features, config.score_hidden, config.dropout)
        if config.init == "he":  # the heads' own layers stay uniform: large first logits take long to unlearn
            self.trunk.apply(_he)
            _he(self.mask_head.conv)
        elif config.init != "uniform":
            raise ValueError(f"model.init: expected he or uniform, got {config.init!r}")
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1) * 255, persistent=False)

    def features(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W), uint8 or float in [0, 255] -> features (N, C, H // stride, W // stride)."""
        images = (images.float() - self.mean) / self.std
        return self.trunk(images.contiguous(memory_format=torch.channels_last))

    def patch_features(self, windows: Tensor) -> Tensor:
        """Training crops (N, 3, window, window) -> features (N, C, f, f) of the patches inside their context."""
        margin = self.geometry.context // self.geometry.stride
        x = self.features(windows)
        return x[..., margin : x.shape[-2] - margin, margin : x.shape[-1] - margin]

    def forward(self, windows: Tensor, branch: str) -> Tensor:
        """One branch on training crops (N, 3, window, window): "mask" -> (N, mask, mask), "score" -> (N,) logits."""
        x = self.patch_features(windows)
        return self.mask_head(x) if branch == "mask" else self.score_head(x)


def upsample(logits: Tensor, size: int) -> Tensor:
    """Mask logits (N, m, m) -> (N, size, size), bilinear with aligned corners and not trained (paper: section 3.4)."""
    return F.interpolate(logits[:, None], (size, size), mode="bilinear", align_corners=True)[:, 0]


def downsample(masks: Tensor, size: int) -> Tensor:
    """Masks (N, P, P) bool -> (N, size, size): the majority of the pixels that `upsample` fills from each output.

    The average is weighted as `upsample` weights them, so the smaller mask lies on the grid of the logits.
    """
    unit = torch.eye(size, dtype=torch.float64, device=masks.device)[:, None]
    weights = F.interpolate(unit, masks.shape[-1], mode="linear", align_corners=True)[:, 0]
    weights = weights / weights.sum(dim=1, keepdim=True)  # (size, P)
    return weights @ masks.double() @ weights.T > 0.5


def mask_loss(logits: Tensor, target: Tensor) -> Tensor:
    """First term of Eq. 1 for patches with y = 1: sum over patches of the mean over pixels of log(1 + exp(-m f)).

    `logits`: (N, m, m); `target`: (N, P, P) bool, True where m = +1, at patch resolution or that of the logits.
    """
    logits = upsample(logits.float(), target.shape[-1])
    return F.binary_cross_entropy_with_logits(logits, target.float(), reduction="none").mean((1, 2)).sum()


def score_loss(logits: Tensor, label: Tensor, weight: float) -> Tensor:
    """Second term of Eq. 1: lambda times the sum over patches of log(1 + exp(-y s)).

    `logits`: (N,); `label`: (N,) bool, True where y = +1; `weight`: lambda, 1/32 in the paper.
    """
    return weight * F.binary_cross_entropy_with_logits(logits.float(), label.float(), reduction="sum")


def _as_kernel(layer: nn.Linear, side: int) -> Tensor:
    return layer.weight.view(layer.out_features, -1, side, side)


def _he(layer: nn.Module) -> None:
    if isinstance(layer, (nn.Conv2d, nn.Linear)):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)
