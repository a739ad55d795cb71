"""DeepMask on one drawn scene, beside the objects that it should find: the first thing to run in a fresh clone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from deepmask import hub, masks, matches, pictures, released
from deepmask.data.scene_files import MAX_IMAGES
from deepmask.data.scenes import FIRST_INDEX, Scene, draw_scene
from deepmask.proposals import ProposalError, ProposalMethod, Proposals

COUNTS = (10, 100)  # best proposals that are looked at
SEED = 0  # of the scenes


def run(folder: str | Path, number: int = 0, method: ProposalMethod | None = None) -> str:
    """Write scene.png and demo.png into `folder`, and return a line on what was found.

    `number`: which scene, of a set that no study trains or reports on; `method`: the released DeepMask, or the
    repository's own if none is released.  Raises WeightsError if there is neither, and ProposalError on the number.
    """
    if not 0 <= number < MAX_IMAGES:
        raise ProposalError(f"scene {number}: there is none; give a number from 0 to {MAX_IMAGES - 1}")
    if method is None:
        method = released.load() if released.path().is_file() else hub.load("deepmask")
    scene = draw_scene(SEED, FIRST_INDEX["test"] + number)
    made = method(scene.image)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(scene.image).save(folder / "scene.png")
    pictures.save(_picture(scene, made), folder / "demo")
    objects = _objects(scene)
    found = {n: int((overlaps(made.top(n), objects) >= matches.FOUND).sum()) for n in COUNTS}
    said = " and ".join(f"the best {n} proposals find {count}" for n, count in found.items())
    return f"{folder / 'demo.png'}: of {len(objects)} objects of a drawn scene that is new to it, {said}, at IoU .5"


def overlaps(proposals: Proposals, objects: np.ndarray) -> np.ndarray:
    """(G,) float64 IoU of each object (G, H, W) bool with the proposal that fits it best."""
    return masks.iou(proposals.masks, masks.encode(objects)).max(axis=0, initial=0.0)


def _objects(scene: Scene) -> np.ndarray:
    """(G, H, W) bool masks of the annotated objects without crowds."""
    found = [mask for _, mask, crowd in scene.instances if not crowd]
    return np.stack(found) if found else np.zeros((0, *scene.image.shape[:2]), bool)


def _picture(scene: Scene, made: Proposals) -> Figure:
    """The annotated objects, the best ten proposals, and the fit of the best hundred."""
    few, many = (made.top(n) for n in COUNTS)
    objects = _objects(scene)
    height, width = scene.image.shape[:2]
    figure = Figure(figsize=(12, 4 * height / width + 0.3), layout="constrained")
    axes = figure.subplots(1, 3)
    pictures.show_masks(axes[0], scene.image, objects, title=f"{len(objects)} annotated objects")
    best = [masks.decode(rle) for rle in few.masks]
    pictures.show_masks(axes[1], scene.image, best, title=f"the best {len(few)} proposals, by score")
    title = f"the best fit among {len(many)}; red: missed"
    matches.best_matches(axes[2], scene.image, many, masks.encode(objects), title)
    return figure
