"""The Fast R-CNN network and its loss (paper: section 4, Detection).

A trunk computes the features of the whole image once; each region of interest (RoI) is pooled from them to a small
grid, and two fully connected layers lead to the scores of the classes and to a better box for each class.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align, roi_pool

from deepmask.detection.rois import RoIs
from deepmask.detection_config import DetectionConfig, DetectionError
from deepmask.model import IMAGENET_MEAN, IMAGENET_STD, Trunk


class FastRCNN(nn.Module):
    """Trunk, RoI pooling and box head; takes RGB with values 0 to 255, and boxes in pixels of the image it is given.

    `trunk`: normalised (1, 3, H, W) -> (1, channels, about H / stride, about W / stride); `classes`: K, without the
    background.  Raises DetectionError if the trunk has fewer convolutions than are to be frozen.
    """

    def __init__(self, trunk: nn.Sequential, channels: int, stride: int, classes: int, config: DetectionConfig) -> None:
        super().__init__()
        self.trunk, self.stride, self.classes, self.config = trunk, stride, classes, config
        self.fc1 = nn.Linear(channels * config.pooled**2, config.hidden[0])
        self.fc2 = nn.Linear(config.hidden[0], config.hidden[1])
        self.scores = nn.Linear(config.hidden[1], classes + 1)
        self.deltas = nn.Linear(config.hidden[1], 4 * classes)
        self.dropout = nn.Dropout(config.dropout)
        for layer in (self.fc1, self.fc2):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        for layer, std in ((self.scores, 0.01), (self.deltas, 0.001)):  # as published
            nn.init.normal_(layer.weight, std=std)
        for layer in (self.fc1, self.fc2, self.scores, self.deltas):
            nn.init.zeros_(layer.bias)
        convolutions = [layer for layer in trunk if isinstance(layer, nn.Conv2d)]
        if config.frozen > len(convolutions):
            raise DetectionError(
                f"detection.frozen: {config.frozen}, but the trunk has {len(convolutions)} convolutions"
            )
        for layer in convolutions[: config.frozen]:
            layer.requires_grad_(False)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1) * 255, persistent=False)

    @classmethod
    def on_trunk(cls, trunk: Trunk, stride: int, classes: int, config: DetectionConfig) -> FastRCNN:
        """On the trunk that the networks of the study share."""
        return cls(trunk, trunk.channels, stride, classes, config)

    @classmethod
    def on_vgg16(cls, vgg: nn.Module, classes: int, config: DetectionConfig) -> FastRCNN:
        """On torchvision's `vgg16`: its convolutions without the last pool, and its fully connected layers.

        Raises DetectionError if `config` asks for other sizes than these layers have.
        """
        channels = [layer.out_channels for layer in vgg.features if isinstance(layer, nn.Conv2d)][-1]
        model = cls(vgg.features[:-1], channels, 16, classes, config)
        for ours, theirs in ((model.fc1, vgg.classifier[0]), (model.fc2, vgg.classifier[3])):
            if ours.weight.shape != theirs.weight.shape:
                wanted, there = tuple(ours.weight.shape), tuple(theirs.weight.shape)
                raise DetectionError(
                    f"detection: pooled and hidden ask for a layer {wanted}; that of VGG-16 is {there}"
                )
            ours.load_state_dict(theirs.state_dict())
        return model

    def scale(self, height: int, width: int) -> float:
        """How much an image is scaled: its shorter side to `shorter`, but its longer one to `longer` at most."""
        return min(self.config.shorter / min(height, width), self.config.longer / max(height, width))

    def features(self, image: Tensor) -> Tensor:
        """Features (1, C, h, w) of an image (3, H, W) uint8, which is scaled first."""
        scale = self.scale(*image.shape[1:])
        x = (image[None].float() - self.mean) / self.std
        if scale != 1:
            size = [max(1, round(side * scale)) for side in image.shape[1:]]
            x = F.interpolate(x, size, mode="bilinear", antialias=scale < 1)
        return self.trunk(x.contiguous(memory_format=torch.channels_last))

    def pool(self, features: Tensor, boxes: Tensor, scale: float) -> Tensor:
        """RoI features (N, C, pooled, pooled) of boxes (N, 4) x1, y1, x2, y2 of the image before it was scaled."""
        size = (self.config.pooled, self.config.pooled)
        if self.config.pooling == "align":
            return roi_align(features.float(), [boxes], size, scale / self.stride, sampling_ratio=2, aligned=True)
        return roi_pool(features.float(), [boxes], size, scale / self.stride)

    def classify(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """RoI features -> class logits (N, K + 1), the background first, and normalised deltas (N, K, 4)."""
        x = self.dropout(F.relu(self.fc1(x.flatten(1))))
        x = self.dropout(F.relu(self.fc2(x)))
        return self.scores(x), self.deltas(x).unflatten(1, (self.classes, 4))

    def forward(self, images: Sequence[Tensor], boxes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """`classify` on all boxes of all images, (3, H, W) uint8 and (N_i, 4) each, one image after another."""
        pairs = zip(images, boxes, strict=True)
        return self.classify(torch.cat([self.pool(self.features(i), b, self.scale(*i.shape[1:])) for i, b in pairs]))


def losses(logits: Tensor, deltas: Tensor, rois: Sequence[RoIs], count: int) -> tuple[Tensor, Tensor]:
    """Class loss and box loss, each a sum over RoIs divided by `count`, the RoIs of a whole batch.

    The class loss is the cross entropy; the box loss the smooth L1 distance of the four targets, of the true class and
    for foreground only.  Fast R-CNN minimises their sum.
    """
    labels, targets = torch.cat([r.labels for r in rois]), torch.cat([r.targets for r in rois])
    foreground = torch.nonzero(labels)[:, 0]
    chosen = deltas[foreground, labels[foreground] - 1].float()
    box = F.smooth_l1_loss(chosen, targets[foreground], reduction="sum")
    return F.cross_entropy(logits.float(), labels, reduction="sum") / count, box / count
