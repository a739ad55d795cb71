"""Dense application: the lazy path is the dense path, and the dense path is the network on every crop."""

import copy
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from deepmask import inference, masks, runs
from deepmask.config import ModelConfig
from deepmask.data import drawing
from deepmask.geometry import Geometry
from deepmask.inference import Cells, DeepMaskProposer, DensePass, Paster, best_cells, resized
from deepmask.model import GRAY, DeepMask, upsample
from deepmask.weights import WeightsError

GEOMETRY = Geometry(patch=32, canonical=16, stride=4, mask=12, jitter=2.0, negative=6.0)
OCTAVES = (-1.0, 0.0, 0.5)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return DeepMask(GEOMETRY, ModelConfig(width=0.05, rank=8, score_hidden=(8, 12))).eval()


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)


def all_cells(scores):
    """Every cell of every scale, in no order of score."""
    grids = [np.indices(s.shape).reshape(2, -1) for s in scores]
    scale = np.concatenate([np.full(g.shape[1], i) for i, g in enumerate(grids)])
    row, col = np.concatenate(grids, axis=1)
    return Cells(scale, row, col, np.zeros(len(scale), np.float32))


def test_cells_are_those_that_the_geometry_counts(model, image):
    scores = DensePass(model, image, OCTAVES, "fp32").scores()
    for octave, s in zip(OCTAVES, scores, strict=True):
        assert s.shape == GEOMETRY.cells(*(math.floor(side * 2.0**octave + 0.5) for side in image.shape[:2]))


def test_lazy_masks_are_the_dense_masks(model, image):
    dense = DensePass(model, image, OCTAVES, "fp32")
    lazy = dense.mask_logits(all_cells(dense.scores()))
    with torch.inference_mode():
        full = torch.cat([model.mask_head.dense(x).flatten(0, 1) for x in dense.features])
    assert torch.allclose(lazy, full, rtol=1e-4, atol=1e-4)


def test_dense_is_the_network_on_crops(model, image):
    """Trunk padding apart: cells whose receptive field lies in their patch's own pixels only see the same pixels, so
    the trunk is run on the padded image and the heads on windows cut from its features, patch by patch."""
    dense = DensePass(model, image, (0.0,), "fp32")
    scores = dense.scores()[0]
    padded = np.pad(image, [(16, 16), (16, 16), (0, 0)], constant_values=GRAY)
    with torch.inference_mode():
        features = model.features(torch.from_numpy(padded).permute(2, 0, 1)[None])
        side = GEOMETRY.features
        for r, c in [(0, 0), (4, 7), scores.shape]:
            r, c = min(r, scores.shape[0] - 1), min(c, scores.shape[1] - 1)
            patch = features[:, :, r : r + side, c : c + side]
            assert np.isclose(scores[r, c], model.score_head(patch).item(), rtol=1e-4, atol=1e-5)


def test_isolated_patches_agree_where_no_border_is_near():
    """A trunk whose convolutions only look at their own pixel makes dense and isolated patches the same numbers."""
    torch.manual_seed(3)
    model = DeepMask(GEOMETRY, ModelConfig(width=0.05, rank=8, score_hidden=(8, 12))).eval()
    with torch.no_grad():
        for conv in model.trunk.convolutions:
            centre = conv.weight[:, :, 1, 1].clone()
            conv.weight.zero_()
            conv.weight[:, :, 1, 1] = centre
    image = np.random.default_rng(1).integers(0, 256, (48, 64, 3), np.uint8)
    dense = DensePass(model, image, (0.0,), "fp32")
    scores, logits = dense.scores()[0], dense.mask_logits(all_cells(dense.scores()))
    padded = torch.from_numpy(np.pad(image, [(16, 16), (16, 16), (0, 0)], constant_values=GRAY)).permute(2, 0, 1)
    with torch.inference_mode():
        for r, c in [(0, 0), (5, 9), (12, 16)]:
            patch = padded[None, :, 4 * r : 4 * r + 32, 4 * c : 4 * c + 32]
            assert np.isclose(scores[r, c], model(patch, "score").item(), rtol=1e-4, atol=1e-5)
            expected = model(patch, "mask")[0]
            assert torch.allclose(logits[r * scores.shape[1] + c], expected, rtol=1e-4, atol=1e-4)


def test_best_cells_are_the_best_of_all_scales():
    rng = np.random.default_rng(2)
    scores = [rng.normal(size=shape).astype(np.float32) for shape in [(3, 4), (5, 7), (1, 2)]]
    cells = best_cells(scores, 10)
    found = [scores[s][r, c] for s, r, c in zip(cells.scale, cells.row, cells.col, strict=True)]
    assert found == sorted(np.concatenate([s.ravel() for s in scores]), reverse=True)[:10]
    assert np.allclose(cells.score, 1 / (1 + np.exp(-np.array(found))))
    assert len(best_cells(scores, 1000).score) == 12 + 35 + 2, "no more than there are"


@pytest.mark.parametrize("threshold", [0.1, 0.5])
def test_pasting_against_a_brute_force_paste(model, image, threshold):
    """Interpolated logits, shifted to the patch's place, cut at logit(p), clipped to the image (section 3.4)."""
    dense = DensePass(model, image, OCTAVES, "fp32")
    cells = best_cells(dense.scores(), 40)
    rles = Paster(dense, cells).masks(threshold)
    logits, (height, width) = dense.mask_logits(cells), image.shape[:2]
    for k, rle in enumerate(rles):
        scale = 2.0 ** OCTAVES[cells.scale[k]]
        side = int(32 / scale)
        patch = upsample(logits[k : k + 1], side)[0].sigmoid().numpy() > threshold
        x, y = (math.floor((4 * cell[k] - 16) / scale + 0.5) for cell in (cells.col, cells.row))
        expected = np.zeros((height, width), bool)
        for i in range(side):
            for j in range(side):
                if 0 <= y + i < height and 0 <= x + j < width:
                    expected[y + i, x + j] = patch[i, j]
        assert (masks.decode(rle) != expected).mean() < 1e-3  # sigmoid and logit round differently at the very edge


def test_pyramid_is_pillows(model):
    """Anti-aliased bilinear, the filter that training patches are cut with."""
    image = np.random.default_rng(4).integers(0, 256, (60, 80, 3), np.uint8)
    dense = DensePass(model, image, (-1.0,), "fp32")
    scaled = np.asarray(Image.fromarray(image).resize((40, 30), Image.Resampling.BILINEAR))
    with torch.inference_mode():
        pixels = F.pad(torch.from_numpy(scaled.copy()).permute(2, 0, 1)[None], [16] * 4, value=GRAY)
        assert torch.allclose(dense.features[0], model.features(pixels), rtol=0.1, atol=0.1)


def test_a_gpu_resizes_as_a_processor_does():
    """In float, because PyTorch interpolates uint8 on processors alone; both round after each axis."""
    pixels = torch.from_numpy(np.random.default_rng(5).integers(0, 256, (1, 3, 61, 83), np.uint8))
    for scale in (0.2, 0.7, 1.0, 1.7):
        expected = resized(pixels, scale)
        found = inference._resized_float(pixels, expected.shape[-2:])
        gap = (found.int() - expected.int()).abs()
        assert found.dtype == torch.uint8 and gap.max() <= 1 and (gap > 0).float().mean() < 0.01


def test_all_tensors_are_made_where_the_network_is(model, image):
    """Those that would be made on a default device are without values here, so that using them fails."""
    propose = DeepMaskProposer(model, OCTAVES, count=30, precision="fp32", longest=40)
    expected = propose(image)
    with torch.device("meta"):
        found = propose(image)
    assert found.masks == expected.masks and np.array_equal(found.boxes, expected.boxes)


def test_any_image_is_resized_to_one_pixel(model):
    """Also the planes that a first resizing leaves, as of an image longer than `longest`."""
    for height, width in [(1, 1), (3, 31), (20, 2)]:
        planes = torch.full((1, 3, height, width), 77, dtype=torch.uint8)
        assert resized(planes, 2.0**-8).flatten().tolist() == [77, 77, 77]
    found = DeepMaskProposer(model, (-8.0,), count=5, precision="fp32", longest=16)(np.zeros((3, 31, 3), np.uint8))
    assert len(found) == 1


def test_weights_that_are_not_finite_are_named(model, image):
    for part in ("score_head", "mask_head"):
        damaged = copy.deepcopy(model)
        next(getattr(damaged, part).parameters()).data.fill_(math.nan)
        with pytest.raises(WeightsError, match="not finite"):
            DeepMaskProposer(damaged, OCTAVES, count=5, precision="fp32")(image)


def test_small_images_are_not_shrunk(model, image):
    whole, limited = (DensePass(model, image, OCTAVES, "fp32", longest=longest) for longest in (None, 53))
    assert limited.shrunk == 1 and all(torch.equal(a, b) for a, b in zip(whole.features, limited.features, strict=True))
    assert DensePass(model, image, OCTAVES, "fp32", longest=52).shrunk == 52 / 53


def test_large_images_have_the_proposals_of_the_shrunk_image_enlarged(model):
    large = drawing.draw_scene(0, 0, 128, 96).image
    small = resized(torch.from_numpy(large).permute(2, 0, 1)[None], 0.5)[0].permute(1, 2, 0).numpy()
    expected = DeepMaskProposer(model, OCTAVES, count=200, precision="fp32")(small)
    found = DeepMaskProposer(model, OCTAVES, count=200, precision="fp32", longest=64)(large)
    assert np.array_equal(found.scores, expected.scores)
    assert found.masks[0]["size"] == [96, 128]
    whole = np.sqrt(masks.areas(expected.masks)) > 8
    assert whole.sum() > 50
    doubled = masks.encode(np.stack([masks.decode(rle).repeat(2, 0).repeat(2, 1) for rle in expected.masks]))
    overlap = np.diag(masks.iou(found.masks, doubled))[whole]
    assert overlap.mean() > 0.85, "outlines differ by a pixel of the small image"
    inside = found.boxes[whole, :2] + found.boxes[whole, 2:] / 2
    assert np.abs(inside - 2 * (expected.boxes[whole, :2] + expected.boxes[whole, 2:] / 2)).mean() < 2


def test_what_the_network_sees_of_a_large_image_is_bounded(model, monkeypatch):
    seen, features = [], model.features
    monkeypatch.setattr(model, "features", lambda x: seen.append(x.shape) or features(x))
    DensePass(model, np.zeros((3000, 4000, 3), np.uint8), (-1.0, 1.0), "fp32", longest=200)
    assert seen == [(1, 3, 75 + 32, 100 + 32), (1, 3, 300 + 32, 400 + 32)]


def pasted_on(height, width, geometry, side, row, col, logits):
    """A Paster of cells whose patches have the side `side` in an image that is never made."""
    dense = SimpleNamespace(size=(height, width), scales=np.array([geometry.patch / side]))
    dense.model, dense.mask_logits = SimpleNamespace(geometry=geometry), lambda cells: logits
    return Paster(dense, Cells(np.zeros(len(logits), int), row, col, np.zeros(len(logits), np.float32)))


def test_pasting_into_a_huge_image_holds_one_patch_at_a_time(monkeypatch):
    held, of_logits = [], runs.of_logits
    monkeypatch.setattr(runs, "of_logits", lambda logits, *rest: held.append(len(logits)) or of_logits(logits, *rest))
    geometry = Geometry()
    logits = torch.ones(3, geometry.mask, geometry.mask)
    logits[2, :, 28:] = -1
    paster = pasted_on(9000, 10000, geometry, 7168, np.array([0, 9, 9]), np.array([0, 9, 9]), logits)
    monkeypatch.setitem(inference.CHUNK, "cpu", 7168 * geometry.mask)
    made = paster.proposals(0.5)
    assert held == [1, 1, 1]
    assert made.boxes[:2].tolist() == [[0, 0, 3584, 3584], [1024, 1024, 7168, 7168]]
    assert np.abs(made.boxes[2] - [1024, 1024, 3584, 7168]).max() <= 1
    monkeypatch.setitem(inference.CHUNK, "cpu", 10**9)
    assert paster.masks(0.5) == made.masks and held[3:] == [3]


def test_proposer_and_its_starred_version(model, image):
    torch.manual_seed(5)
    other = DeepMask(GEOMETRY, ModelConfig(width=0.05, rank=8, score_hidden=(8, 12))).eval()
    plain = DeepMaskProposer(model, OCTAVES, count=30, threshold=0.4, precision="fp32")(image)
    assert len(plain) == 30 and np.all(np.diff(plain.scores) <= 0)
    assert np.allclose(masks.boxes(plain.masks), plain.boxes)
    starred = DeepMaskProposer(model, OCTAVES, scorer=other, count=30, threshold=0.4, precision="fp32")(image)
    ranked_by_other = best_cells(DensePass(other, image, OCTAVES, "fp32").scores(), 30)
    assert np.array_equal(starred.scores, ranked_by_other.score), "scores of one network"
    expected = Paster(DensePass(model, image, OCTAVES, "fp32"), ranked_by_other).masks(0.4)
    assert starred.masks == expected, "masks of the other"


def test_tiny_images_do_not_break(model):
    for shape in [(1, 1, 3), (2, 90, 3)]:
        made = DeepMaskProposer(model, (-2.0, 0.0), count=5, precision="fp32")(np.zeros(shape, np.uint8))
        assert 0 < len(made) <= 5 and made.masks[0]["size"] == list(shape[:2])
