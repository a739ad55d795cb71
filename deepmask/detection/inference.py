"""Detecting in an image with any number of its best proposals (paper: section 4, Detection; Figure 5).

Neither the features of an image nor what the box head makes of a proposal depends on the other proposals, so both are
computed once, for the largest number; a smaller number is a prefix of it, and only the suppression is done again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import batched_nms, box_convert, clip_boxes_to_image

from deepmask import device as devices
from deepmask.detection import rois
from deepmask.detection.model import FastRCNN
from deepmask.detection.voc_map import Detections
from deepmask.proposals import Proposals

CHUNK = 256  # RoIs that go through the box head at a time


@torch.inference_mode()
def detect(
    model: FastRCNN, categories: Sequence[int], image: np.ndarray, proposals: Proposals, counts: Sequence[int]
) -> dict[int, Detections]:
    """The detections with the best n proposals, for every n of `counts`.

    `model`: in evaluation mode; `categories`: ids of its classes; `image`: (H, W, 3) uint8 RGB.
    """
    proposals = proposals.top(max(counts))
    places = rois.usable(proposals)
    scores, boxes = predict(model, image, rois.corners(proposals.boxes[places]))
    ends = np.searchsorted(places, counts).tolist()  # of the RoIs, as some proposals have none
    return {n: _select(scores[:end], boxes[:end], categories, model) for n, end in zip(counts, ends, strict=True)}


def predict(model: FastRCNN, image: np.ndarray, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Class probabilities (N, K), without the background, and boxes (N, K, 4) inside the image, for RoIs (N, 4).

    Boxes are x1, y1, x2, y2 in pixels of `image` (H, W, 3) uint8 RGB.
    """
    device = next(model.parameters()).device
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).to(device)
    boxes, scale = boxes.to(device), model.scale(*image.shape[:2])
    parts = []
    with devices.autocast(devices.precision(model.config.precision, device), device):
        features = model.features(pixels)
        for some in boxes.split(CHUNK):
            logits, deltas = model.classify(model.pool(features, some, scale))
            made = clip_boxes_to_image(rois.decode(some, deltas.float()), image.shape[:2])
            parts.append((logits.float().softmax(dim=1)[:, 1:].cpu(), made.cpu()))
    if not parts:
        return torch.zeros(0, model.classes), torch.zeros(0, model.classes, 4)
    scores, made = zip(*parts, strict=True)
    return torch.cat(scores), torch.cat(made)


def _select(scores: Tensor, boxes: Tensor, categories: Sequence[int], model: FastRCNN) -> Detections:
    """Detections above the score, without those that a better one of their class covers, the best ones first."""
    config = model.config
    rows, classes = torch.nonzero(scores > config.score, as_tuple=True)
    scores, boxes = scores[rows, classes], boxes[rows, classes]
    kept = batched_nms(boxes, scores, classes, config.nms)[: config.detections]
    made = box_convert(boxes[kept], "xyxy", "xywh")
    return Detections(made.numpy(), scores[kept].numpy(), np.asarray(categories)[classes[kept].numpy()])
