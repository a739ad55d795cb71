"""Every proposal method of the study by its key, and their proposals for image files (paper: section 4)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from deepmask import device as devices
from deepmask import files, masks, pictures, results_file
from deepmask.config import Config, ConfigError
from deepmask.data.coco import read_image
from deepmask.paths import Study
from deepmask.proposals import ProposalMethod, Proposals
from deepmask.systems import CLASSICAL, SYSTEMS

SHOWN = 10  # proposals in the picture of an image
WIDEST = 5.0  # width by height of a picture, or height by width; a strip stands in an empty frame


class WithEdges:
    """A classical method together with its edge detector: image -> ranked proposals."""

    def __init__(self, method: Callable, detector: Callable | None) -> None:
        self.name, self.method, self.detector = method.name, method, detector

    def __call__(self, image: np.ndarray) -> Proposals:
        """Proposals of an image (H, W, 3) uint8 RGB, with `image_id` 0."""
        return self.method(image, None if self.detector is None else self.detector(image))


def load(key: str, study: Study, config: Config, count: int = 1000, threshold: float | None = None) -> ProposalMethod:
    """A method of SYSTEMS or CLASSICAL with the weights and forests of a study, ready for any image.

    `threshold`: the probability at which networks cut their masks; None is the one that was chosen on tuning images.
    Raises ConfigError on another key or a count below 0, and WeightsError or BaselineError if the study has not made
    what it needs.
    """
    if key not in SYSTEMS and key not in CLASSICAL:
        raise ConfigError(f"method: expected one of {', '.join([*SYSTEMS, *CLASSICAL])}, got {key!r}")
    if count < 0:
        raise ConfigError(f"count: {count} proposals cannot be made; ask for 0 or more")
    if key in CLASSICAL:  # imported here, because the networks need neither numba nor higra
        from deepmask.baselines import methods

        method = methods.load(key, config.baselines, study.ranking, count)
        if not CLASSICAL[key].edges:
            return WithEdges(method, None)
        from deepmask.baselines.edges import EdgeDetector

        return WithEdges(method, EdgeDetector(study.forest, config.edges.scales))
    from deepmask.inference import DeepMaskProposer
    from deepmask.weights import load_model

    system = SYSTEMS[key]
    octaves = config.propose.scales + ((config.propose.zoom,) if system.zoom else ())
    networks = {name: load_model(study.weights(name), devices.device()) for name in {system.masks, system.scores}}
    return DeepMaskProposer(
        networks[system.masks],
        octaves,
        scorer=networks[system.scores],
        count=count,
        threshold=threshold or _threshold(study, config, system.masks),
        longest=config.propose.longest,
        name=system.name,
    )


def propose_files(method: ProposalMethod, images: Sequence[Path], folder: Path) -> Iterator[str]:
    """Propose on image files, and yield a line of text about each.

    Writes folder/proposals.json (COCO results; the images are numbered from 1 in their order), folder/images.json
    (their names and sizes in COCO's format, so that pycocotools loads both) and a picture of the best of each.
    Raises DataError on a file that is no image.
    """
    records = []
    with results_file.Writer(folder / "proposals.json") as writer:
        for number, path in enumerate(images, 1):
            image = read_image(path)
            made = method(image)
            writer.add(made.of(number))
            picture = folder / f"{number}-{path.stem}"
            pictures.save(_picture(image, made.top(SHOWN)), picture)
            height, width = image.shape[:2]
            records.append({"id": number, "file_name": str(path), "width": width, "height": height})
            yield f"{path}: {len(made)} proposals, the best {min(SHOWN, len(made))} in {picture}.png"
    document = {"images": records, "annotations": [], "categories": [{"id": results_file.CATEGORY, "name": "object"}]}
    files.write_text(folder / "images.json", json.dumps(document, indent=1) + "\n")
    yield f"{folder / 'proposals.json'}: the proposals of {len(records)} images, by {method.name}"


def _threshold(study: Study, config: Config, network: str) -> float:
    """The mask threshold that was chosen on tuning images, or the first candidate if none has been yet."""
    path = study.result("tuning", f"{network}.csv")
    if not path.is_file():
        return config.propose.thresholds[0]
    tuned = pd.read_csv(path)
    return float(tuned.threshold[tuned.chosen].iloc[0])


def _picture(image: np.ndarray, proposals: Proposals) -> Figure:
    shape = np.clip(image.shape[0] / image.shape[1], 1 / WIDEST, WIDEST)
    figure = Figure(figsize=(8, 8 * shape), layout="constrained")
    axis = figure.subplots()
    if proposals.masks is None:
        pictures.show(axis, image)
        pictures.show_boxes(axis, proposals.boxes, pictures.colours(len(proposals)))
    else:
        pictures.show_masks(axis, image, [masks.decode(rle) for rle in proposals.masks])
    return figure
