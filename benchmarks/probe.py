"""What this machine does in a second of each long part of a study, measured in a minute: `budget.Rates`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks import inference, train
from benchmarks.budget import Rates
from deepmask import config as configs
from deepmask import device as devices
from deepmask import files
from deepmask.config import Config
from deepmask.data.coco import InstanceDataset
from deepmask.data.scenes import write_scenes
from deepmask.pretraining import pretrain

SCENES = 48  # drawn per core, enough that the start of the processes hardly counts
BATCHES = (20, 120)  # of two pre-trainings, whose difference is timed
WRITING = 0.8  # of the rate of proposing is left when results are written too


def rates(config: Config, quick: bool = False) -> Rates:
    """Measure them for a profile; `quick` takes less care."""
    device, data = devices.device(), config.data
    if device.type == "cpu":
        torch.set_num_threads(1)  # as in each process of a job
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        count = 16 if quick else SCENES * devices.cores()
        start = time.perf_counter()
        write_scenes(
            folder, train=count, val=0, width=data.width, height=data.height, seed=data.seed + 1, progress=False
        )
        drawn = count / (time.perf_counter() - start)
        dataset = InstanceDataset.read(folder / "annotations/instances_train.json", folder / "images")
        case = train.Case(config.train.batch, config.train.optimiser, config.train.compile)
        # as large a part of the images in memory as in the study
        cache_mb = max(1, round(train.CACHE_MB * count / max(count, data.train_images)))
        trained = train.measure(config, case, dataset, device, 0.5 if quick else 5.0, folder, cache_mb)
        model = inference.build(config, device)
        propose = dataclasses.replace(config.propose, scales=(*config.propose.scales, config.propose.zoom))
        images = [dataset.image(i) for i in range(2 if quick else 4)]
        proposed = inference.measure(dataclasses.replace(config, propose=propose), model, images, device)
    return Rates(
        scenes=drawn,
        pretrain=_pretrain_rate(config, (2, 6) if quick else BATCHES),
        train=trained["data_patches_per_s"],
        images=WRITING * proposed["images_per_s"],
    )


def _pretrain_rate(config: Config, batches: tuple[int, int]) -> float:
    """Samples per second; the difference of a short and a longer run leaves out what both need to start."""
    took = []
    for count in batches:
        chosen = dataclasses.replace(config.pretrain, samples=count * config.pretrain.batch)
        start = time.perf_counter()
        pretrain(config.geometry, config.model, chosen)
        took.append(time.perf_counter() - start)
    short, long = (count * config.pretrain.batch for count in batches)
    apart = took[1] - took[0]
    return (long - short) / apart if apart > 0.05 * took[1] else long / took[1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the rates of a parameter file's profile as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.probe", description=__doc__)
    parser.add_argument("params", type=Path)
    parser.add_argument("out", type=Path, metavar="OUT.json")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(arguments)
    files.write_json(options.out, dataclasses.asdict(rates(configs.load(options.params), options.quick)))
    print(options.out.read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
