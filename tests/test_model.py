"""The network: parameter counts of the paper, Equation 1, and dense application against patches."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchvision.models import vgg11

from deepmask import config
from deepmask.config import ModelConfig
from deepmask.geometry import Geometry
from deepmask.model import DeepMask, Pool, Trunk, mask_loss, score_loss, upsample

PARAMS = Path(__file__).resolve().parent.parent / "params.yaml"
TINY = Geometry(patch=32, canonical=16, stride=4, mask=12, jitter=2.0, negative=6.0)
SMALL = ModelConfig(width=0.05, rank=8, score_hidden=(8, 12))


@pytest.mark.parametrize(("rank", "count"), [(512, 75_844_545), (None, 337_562_049)])
def test_parameter_counts_at_the_paper_geometry(rank, count):
    """Section 3.4: "around 75M"; section 4: DeepMaskFull "over 300M"."""
    paper = config.load(PARAMS, "coco")
    with torch.device("meta"):
        model = DeepMask(paper.geometry, dataclasses.replace(paper.model, rank=rank))
    assert sum(p.numel() for p in model.parameters()) == count


def test_trunk_is_torchvisions_vgg_a_without_its_last_pool():
    torch.manual_seed(0)
    vgg = vgg11(weights=None).eval()
    trunk = Trunk(1.0, 4)
    trunk.load_vgg_a(vgg)
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = vgg.features[:-1](x)  # all but the fifth pool
        assert trunk(x).shape == (1, 512, 4, 6)
        assert torch.allclose(trunk(x), expected, rtol=1e-4, atol=1e-6)


@pytest.fixture(params=[8, None], ids=["low rank", "full rank"])
def model(request):
    torch.manual_seed(1)
    return DeepMask(TINY, dataclasses.replace(SMALL, rank=request.param)).eval()


@pytest.mark.parametrize("size", [(32, 32), (60, 44), (41, 53)])
def test_dense_heads_equal_the_heads_on_every_patch(model, size):
    x = torch.relu(torch.randn(1, model.trunk.channels, size[0] // 4, size[1] // 4))
    side = TINY.features
    with torch.no_grad():
        scores, masks = model.score_head.dense(x), model.mask_head.dense(x)
        rows, cols = scores.shape
        assert (rows, cols) == (x.shape[2] - side + 1, x.shape[3] - side + 1)
        for r in range(rows):
            for c in range(cols):
                patch = x[:, :, r : r + side, c : c + side]
                assert torch.allclose(scores[r, c], model.score_head(patch)[0], rtol=1e-4, atol=1e-5)
                assert torch.allclose(masks[r, c], model.mask_head(patch)[0], rtol=1e-4, atol=1e-5)


def test_dense_scores_equal_explicit_interleaving(model):
    """Section 3.3: run the 2x2 pool on four shifted maps and interleave the four results."""
    x = torch.relu(torch.randn(1, model.trunk.channels, 15, 18))
    head, side = model.score_head, TINY.features
    kernel = head.fc1.weight.view(head.fc1.out_features, -1, side // 2, side // 2)
    with torch.no_grad():
        dense = head.dense(x)
        interleaved = torch.full_like(dense, torch.nan)
        for dy in (0, 1):
            for dx in (0, 1):
                out = F.relu(F.conv2d(F.max_pool2d(x[:, :, dy:, dx:], 2), kernel, head.fc1.bias))[0].permute(1, 2, 0)
                out = head.out(F.relu(head.fc2(out)))[..., 0]
                place = interleaved[dy::2, dx::2]
                place.copy_(out[: place.shape[0], : place.shape[1]])
    assert torch.allclose(dense, interleaved, rtol=1e-4, atol=1e-5)


def test_masks_at_cells_equal_the_dense_masks(model):
    """Of any maps at once, in any order and in pieces."""
    maps = [torch.relu(torch.randn(1, model.trunk.channels, *size)) for size in ((14, 17), (8, 8), (9, 20))]
    index = torch.tensor([2, 0, 1, 0, 2, 0])
    rows, cols = torch.tensor([1, 0, 0, 6, 0, 3]), torch.tensor([12, 9, 0, 0, 2, 4])
    with torch.no_grad():
        found = model.mask_head.at(maps, index, rows, cols, chunk=4)
        dense = [model.mask_head.dense(x) for x in maps]
        expected = torch.stack([dense[i][r, c] for i, r, c in zip(index, rows, cols, strict=True)])
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)
        assert model.mask_head.at(maps, index[:0], rows[:0], cols[:0]).shape == (0, 12, 12)


@pytest.mark.parametrize("shape", [(2, 3, 8, 10), (1, 5, 7, 9), (1, 1, 2, 3)])
def test_pooling_without_a_gradient_is_pooling(shape):
    x = torch.randn(shape, requires_grad=True)
    with torch.no_grad():
        assert torch.equal(Pool(2)(x), F.max_pool2d(x, 2))
    (gradient,) = torch.autograd.grad(Pool(2)(x).sum(), x)
    assert gradient.sum() == F.max_pool2d(x, 2).numel()


def test_context_is_seen_by_the_trunk_alone():
    """With context the features of a patch are those of the same place in a larger image."""
    torch.manual_seed(2)
    model = DeepMask(dataclasses.replace(TINY, context=4), SMALL).eval()
    window = torch.randint(0, 256, (2, 3, 40, 40), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(model.patch_features(window), model.features(window)[:, :, 1:-1, 1:-1])


def test_equation_1_by_hand():
    torch.manual_seed(3)
    logits, target = torch.randn(5, 12, 12), torch.rand(5, 32, 32) > 0.5
    f, m = upsample(logits, 32), target.float() * 2 - 1
    expected = sum(torch.log1p(torch.exp(-m[k] * f[k])).mean() for k in range(5))
    assert torch.isclose(mask_loss(logits, target), expected, rtol=1e-5)
    scores, label = torch.randn(6), torch.tensor([True, False] * 3)
    y = label.float() * 2 - 1
    assert torch.isclose(score_loss(scores, label, 1 / 32), torch.log1p(torch.exp(-y * scores)).sum() / 32)


def test_upsampling_keeps_the_corners():
    logits = torch.randn(1, 4, 4)
    up = upsample(logits, 9)
    assert torch.allclose(up[0, ::8, ::8], logits[0, ::3, ::3])


def test_pixels_are_normalised_by_the_model():
    model = DeepMask(TINY, SMALL).eval()
    image = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in [(0.485, 0.456, 0.406), (0.229, 0.224, 0.225)])
    with torch.no_grad():
        assert torch.allclose(model.features(image), model.trunk((image / 255 - mean) / std), rtol=1e-3, atol=1e-4)
        assert torch.equal(model.features(image), model.features(image.float()))


def test_uniform_init_has_torch7s_bound():
    """Section 3.4: uniform; the bound is 1 / sqrt(fan in), as in Torch."""
    model = DeepMask(TINY, dataclasses.replace(SMALL, init="uniform"))
    weight = model.mask_head.low_rank.weight
    bound = 1 / np.sqrt(weight.shape[1])
    assert weight.abs().max() <= bound and weight.abs().max() > 0.95 * bound
    with pytest.raises(ValueError, match="model.init"):
        DeepMask(TINY, dataclasses.replace(SMALL, init="zeros"))
