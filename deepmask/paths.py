"""Where the files of a study are.  A study is one folder: the repository itself, or one run folder below `runs/`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
SCRATCH = "_scratch"  # interactive runs and tests write below this folder of the repository


@dataclass(frozen=True)
class Study:
    """The files of one study below `root`, by what they hold."""

    root: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root))

    @property
    def scenes(self) -> Path:
        """COCO-format folder of the drawn scenes."""
        return self.root / "data" / "scenes"

    @property
    def dataset(self) -> Path:
        """JSON record of the data that the study uses: folder, splits, counts."""
        return self.root / "data" / "dataset.json"

    @property
    def pascal(self) -> Path:
        """PASCAL's annotations in COCO's format, and the images if they are drawn."""
        return self.root / "pascal"

    @property
    def trunk(self) -> Path:
        """Weights of the pre-trained trunk."""
        return self.root / "models" / "trunk.safetensors"

    def weights(self, variant: str) -> Path:
        """Weights of a trained network."""
        return self.root / "models" / f"{variant}.safetensors"

    @property
    def pixels(self) -> Path:
        """The training images as raw pixels, for devices that cut patches; kept for the next network."""
        return self.root / "checkpoints" / "pixels.bin"

    def checkpoint(self, name: str) -> Path:
        """State of a training run in progress; removed when the run is complete."""
        return self.root / "checkpoints" / f"{name}.pt"

    def lock(self, job: str) -> Path:
        """What a job holds while it runs, so that two of the same take turns."""
        return self.root / "checkpoints" / f"{job}.lock"

    def scratch(self, job: str) -> Path:
        """What a job over many images has finished so far; removed when the job is complete."""
        return self.root / "checkpoints" / job

    @property
    def forest(self) -> Path:
        """The structured forest of the edge detector, in OpenCV's format."""
        return self.root / "models" / "edges.yml.gz"

    @property
    def ranking(self) -> Path:
        """The forest that ranks MCG's proposals."""
        return self.root / "models" / "mcg.npz"

    def edges(self, image_id: int) -> Path:
        """Edge maps of one reported image."""
        return self.root / "edges" / f"{image_id}.npz"

    def detections(self, source: str) -> Path:
        """What the detector that was trained on the proposals of `source` finds on the test images."""
        return self.root / "detections" / f"{source}.npz"

    def proposals(self, source: str, system: str) -> Path:
        """Proposals of one system on the reported images, COCO results JSON; `source` is what makes its masks."""
        return self.root / "proposals" / source / f"{system}.json"

    def result(self, *parts: str) -> Path:
        """A small result that is kept in git: tables, metrics, figures, histories."""
        return self.root.joinpath("results", *parts)


def downloads() -> Path:
    """Where downloaded data and weights are, for all studies: DEEPMASK_DOWNLOADS, or `downloads/` in the repository.

    A machine's place is no parameter of a study.  A relative one is seen from the repository.
    """
    return REPOSITORY / Path(os.environ.get("DEEPMASK_DOWNLOADS") or "downloads").expanduser()


def mirror() -> str | None:
    """Where files are fetched from instead of their own address: DEEPMASK_MIRROR, a base URL or a folder."""
    return os.environ.get("DEEPMASK_MIRROR") or None


def study(root: str | Path) -> Study:
    """The study in folder `root`, which is made if it does not exist."""
    Path(root).mkdir(parents=True, exist_ok=True)
    return Study(Path(root))
