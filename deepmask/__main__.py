"""`python -m deepmask COMMAND`: check, voc, download, scenes, propose, evaluate, study, and the jobs of notebooks."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

JOBS = ("pretrain", "train", "propose", "edges", "ranking", "baseline", "pascal", "detection_proposals", "detection")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; user errors end in one sentence on stderr and exit status 1."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options) or 0
    except (ValueError, RuntimeError, OSError) as error:
        if not type(error).__module__.startswith("deepmask") and not isinstance(error, OSError):
            raise
        print(f"deepmask {options.command}: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deepmask", description=__doc__.split(":")[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    command = commands.add_parser("check", help="report what is wrong with a COCO-format folder")
    command.add_argument("folder", type=Path)
    command.set_defaults(run=_check)

    command = commands.add_parser("voc", help="write PASCAL VOC annotations as a COCO instances file")
    command.add_argument("folder", type=Path, help="a VOCdevkit, or VOC2007 in it")
    command.add_argument("out", type=Path, metavar="OUT.json")
    command.add_argument("--split", default="test", help="a list in ImageSets/Main (test)")
    command.add_argument("--classes", action="store_true", help="also print the objects of each class")
    command.set_defaults(run=_voc)

    command = commands.add_parser("download", help="fetch the data and weights that a profile needs from elsewhere")
    command.add_argument("--params", type=Path, default=Path("params.yaml"), help="parameter file (params.yaml)")
    command.add_argument("--profile", help="profile of the parameter file; default: its top level")
    command.add_argument("--list", action="store_true", help="only say what is there, what would be fetched, how large")
    command.add_argument("--keep", action="store_true", help="keep archives after their extraction")
    command.set_defaults(run=_download)

    command = commands.add_parser("scenes", help="draw the data set of a study")
    _study_options(command)
    command.set_defaults(run=_scenes)

    command = commands.add_parser("job", help="one job of a study (what the notebooks start on every core)")
    command.add_argument("job", choices=JOBS)
    _study_options(command)
    command.add_argument("--variant", default="", help="a network (train, propose) or a method (baseline, detection)")
    command.set_defaults(run=_job)

    command = commands.add_parser("propose", help="proposals of image files, by any method")
    command.add_argument("images", nargs="+", metavar="IMAGE", help="image files, folders of images, patterns")
    command.add_argument("--method", default="deepmask", help="deepmask, edgeboxes, selectivesearch, mcg, ...")
    _study_options(command)
    command.add_argument("--count", type=int, default=1000, help="proposals per image (1000)")
    command.add_argument("--out", type=Path, default=Path("proposals-of-images"), help="folder to write into")
    command.add_argument("--annotations", type=Path, help="COCO JSON whose image ids to use (1, 2, ...)")
    command.add_argument("--chunk", type=_positive, default=5000, help="images per results file (5000)")
    command.add_argument("--pictures", type=int, default=20, metavar="N", help="draw the first N images (20)")
    command.set_defaults(run=_propose)

    command = commands.add_parser("evaluate", help="average recall of any COCO results files")
    command.add_argument(
        "proposals", type=Path, nargs="+", help="COCO results JSON of any program, or a folder that propose wrote"
    )
    command.add_argument("--annotations", type=Path, required=True, help="COCO instances JSON")
    command.add_argument("--images", type=int, help="only the first N images by ascending id (paper: 5000)")
    command.add_argument("--small", type=float, default=32.0, help="objects below SMALL^2 px are small (32)")
    command.add_argument("--large", type=float, default=96.0, help="objects above LARGE^2 px are large (96)")
    command.add_argument("--csv", type=Path, help="also write a table with 95 %% intervals over images")
    command.set_defaults(run=_evaluate)

    command = commands.add_parser("study", help="prepare a run folder with another profile or your own data")
    command.add_argument("folder", type=Path)
    command.add_argument("--profile", help="a profile of params.yaml; default: its top level")
    command.add_argument("--data", type=Path, help="your COCO-format folder")
    command.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="change parameters: data.seed=1")
    command.set_defaults(run=_study)

    command = commands.add_parser("readme", help="write the results of the study into README.md")
    command.add_argument("--check", action="store_true", help="change nothing; exit status 1 if it is out of date")
    command.set_defaults(run=_readme)

    command = commands.add_parser("normalise", help="executed notebook without times, paths and progress")
    command.add_argument("source", type=Path)
    command.add_argument("destination", type=Path)
    command.set_defaults(run=_normalise)
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _study_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--study", type=Path, default=Path("."), help="folder of the study (.)")
    command.add_argument("--params", type=Path, default=Path("params.yaml"), help="parameter file (params.yaml)")
    command.add_argument("--profile", help="profile of the parameter file; default: its top level")


# Imports below are local: `--help` and `evaluate` should not wait for torch.


def _check(options: argparse.Namespace) -> int:
    from deepmask.data.check import check_folder, format_report

    report = check_folder(options.folder)
    print(format_report(report))
    return 1 if report.errors else 0


def _voc(options: argparse.Namespace) -> None:
    from deepmask.data import voc

    print(f"{options.out}: {voc.describe(voc.write_coco(options.folder, options.out, options.split), options.classes)}")


def _download(options: argparse.Namespace) -> None:
    from deepmask import config, paths
    from deepmask.data import download, sources

    settings = config.load(options.params, options.profile)
    needed = sources.needed(settings.data, settings.pascal, settings.pretrain, settings.detection)
    if not needed:
        print(f"profile {settings.profile}: needs no downloads")
        return
    folder, mirror = paths.downloads(), paths.mirror()
    if not options.list:
        download.download(needed, folder, mirror, keep=options.keep)
    print(download.describe(needed, folder, mirror))


def _scenes(options: argparse.Namespace) -> None:
    from deepmask import config
    from deepmask.data.scenes import write_scenes
    from deepmask.paths import study

    data = config.load(options.params, options.profile).data
    folder = study(options.study).scenes
    val = data.reported_images + data.tuning_images
    write_scenes(folder, train=data.train_images, val=val, width=data.width, height=data.height, seed=data.seed)
    print(f"{folder}: {data.train_images} training and {val} validation scenes")


def _job(options: argparse.Namespace) -> None:
    from importlib import import_module

    from deepmask import config
    from deepmask.distributed import process_group
    from deepmask.paths import study

    job = import_module(f"deepmask.stages.{options.job}").job
    with process_group() as (rank, ranks):
        job(study(options.study), config.load(options.params, options.profile), options.variant, rank, ranks)


def _propose(options: argparse.Namespace) -> None:
    from deepmask import config, methods, proposing
    from deepmask.distributed import process_group
    from deepmask.paths import Study

    study, settings = Study(options.study), config.load(options.params, options.profile)
    images = proposing.find_images(options.images, options.out)
    ids = options.annotations and proposing.annotated_ids(images, options.annotations)
    with process_group() as (rank, ranks):
        method = methods.load(options.method, study, settings, options.count)
        reads = methods.reads(options.method, study, settings, options.count)
        lines = proposing.propose_files(
            method,
            images,
            options.out,
            reads=reads,
            ids=ids,
            chunk=options.chunk,
            drawn=options.pictures,
            rank=rank,
            ranks=ranks,
        )
        for line in lines:
            print(line, flush=True)


def _evaluate(options: argparse.Namespace) -> None:
    from deepmask import files, paper, scoring
    from deepmask.systems import CLASSICAL

    settings = {"small": options.small, "large": options.large, "images": options.images}
    for path in options.proposals:
        if len(options.proposals) > 1:
            print(f"\n{path}")
        print(scoring.format_summary(scoring.evaluate_file(path, options.annotations, **settings)))
    if options.csv:
        labels = paper.METHODS | {key: classical.label for key, classical in CLASSICAL.items()}
        names = {labels.get(path.stem, path.stem): path for path in options.proposals}
        files.write_csv(options.csv, scoring.table(names, options.annotations, **settings))


def _study(options: argparse.Namespace) -> None:
    from deepmask.studies import prepare

    print(prepare(options.folder, options.profile, options.data, options.set))


def _readme(options: argparse.Namespace) -> int:
    from deepmask import readme
    from deepmask.paths import REPOSITORY, Study

    path, study = REPOSITORY / "README.md", Study(REPOSITORY)
    if options.check:
        current = readme.updated(path.read_text(encoding="utf-8"), study) == path.read_text(encoding="utf-8")
        print("README.md shows the current results" if current else "README.md is out of date: run it without --check")
        return int(not current)
    print("README.md updated" if readme.update(path, study) else "README.md shows the current results")
    return 0


def _normalise(options: argparse.Namespace) -> None:
    from deepmask.notebooks import normalise

    normalise(options.source, options.destination)


if __name__ == "__main__":
    sys.exit(main())
