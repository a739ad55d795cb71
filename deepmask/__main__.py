"""The command line, `deepmask COMMAND`: proposals, scores, training and data; the parser, and how errors are told."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from deepmask import commands, failures, processes

JOBS = ("pretrain", "train", "propose", "edges", "ranking", "baseline", "pascal", "detection_proposals", "detection")
INTERRUPTED = 130  # exit status after Ctrl-C, as shells have it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; user errors end in one sentence on stderr and exit status 1."""
    if "LOCAL_RANK" in os.environ:  # before anything that takes its time to be imported
        processes.end_with_launcher()
    for stream in (sys.stdout, sys.stderr):  # a file may have a name that the terminal cannot show
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    options = parser().parse_args(arguments)
    try:
        return options.run(options) or 0
    except KeyboardInterrupt:
        print(f"deepmask {options.command}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        said = str(error) if type(error).__module__.startswith("deepmask") else failures.sentence(error)
        if said is None:
            raise
        print(f"deepmask {options.command}: {said}", file=sys.stderr)
        return 1


def parser() -> argparse.ArgumentParser:
    """The parser of all commands, under the name by which the program was started."""
    program = "deepmask" if Path(sys.argv[0]).stem == "deepmask" else "python -m deepmask"
    made = argparse.ArgumentParser(prog=program, description="DeepMask and five classical methods: object proposals.")
    add = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _use(add)
    _study(add)
    _data(add)
    _internal(add)
    return made


def _command(
    add: Any, name: str, run: Callable[[argparse.Namespace], int | None], text: str, *examples: str
) -> argparse.ArgumentParser:
    """A command with its one-line description, also used in the list of all, and lines to copy."""
    lines = "\n".join(f"  %(prog)s {line}".rstrip() for line in examples)
    command = add.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=f"{'examples' if len(examples) > 1 else 'example'}:\n{lines}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=run)
    return command


def _use(add: Any) -> None:
    command = _command(
        add,
        "propose",
        commands.propose,
        "proposals of image files, by any method: pictures and COCO results",
        "photo.jpg",
        "photos/ --method deepmask --count 100 --out found",
    )
    command.add_argument("images", nargs="+", metavar="IMAGE", help="image files, folders of images, patterns")
    command.add_argument(
        "--method",
        help="deepmask, deepmaskzoom, edgeboxes, selectivesearch, mcg, ...; default: selectivesearch, or deepmask if "
        "the study has trained it on images of its own",
    )
    command.add_argument("--weights", metavar="FILE", help="weights of a DeepMask network, or `released`")
    _study_options(command, "the current folder if it is a study, else the repository")
    command.add_argument("--count", type=int, default=1000, help="proposals per image (1000)")
    command.add_argument("--out", type=Path, default=Path("proposals-of-images"), help="folder to write into")
    command.add_argument("--annotations", type=Path, help="COCO JSON whose image ids to use (1, 2, ...)")
    command.add_argument("--chunk", type=_positive, default=5000, help="images per results file (5000)")
    command.add_argument("--pictures", type=int, default=20, metavar="N", help="draw the first N images (20)")

    command = _command(
        add, "demo", commands.demo, "draw one scene and show what DeepMask finds in it; needs nothing", "", "--scene 7"
    )
    command.add_argument("--out", type=Path, default=Path("demo"), help="folder to write into (demo)")
    command.add_argument("--scene", type=int, default=0, metavar="N", help="another scene (0); none was trained on")

    command = _command(
        add,
        "evaluate",
        commands.evaluate,
        "average recall of any COCO results files",
        "proposals.json --annotations instances_val2014.json --images 5000",
        "ours.json theirs.json --annotations instances.json --csv table.csv",
    )
    command.add_argument(
        "proposals", type=Path, nargs="+", help="COCO results JSON of any program, or a folder that propose wrote"
    )
    command.add_argument("--annotations", type=Path, required=True, help="COCO instances JSON")
    command.add_argument("--images", type=int, help="only the first N images by ascending id (paper: 5000)")
    command.add_argument("--small", type=float, default=32.0, help="objects below SMALL^2 px are small (32)")
    command.add_argument("--large", type=float, default=96.0, help="objects above LARGE^2 px are large (96)")
    command.add_argument("--csv", type=Path, help="also write a table with 95 %% intervals over images")


def _study(add: Any) -> None:
    command = _command(
        add,
        "train",
        commands.train,
        "train one network of a study on every core or GPU, and before it what it needs",
        "deepmask --study runs/mine",
        "deepmaskfull --study runs/small --profile smoke",
    )
    command.add_argument("variant", help="deepmask, deepmask20, deepmaskfull, or an ablation such as downsampled")
    command.add_argument("--study", type=Path, required=True, help="folder of the study; made if there is none")
    command.add_argument("--profile", help="profile of a folder that is made; default: the top level of params.yaml")
    command.add_argument("--data", type=Path, help="your COCO-format folder, for a folder that is made")

    command = _command(
        add,
        "study",
        commands.study,
        "prepare a run folder with another profile or your own data",
        "runs/mine --data my-coco --set train.samples=100000 train.seed=1",
    )
    command.add_argument("folder", type=Path)
    command.add_argument("--profile", help="a profile of params.yaml; default: its top level")
    command.add_argument("--data", type=Path, help="your COCO-format folder")
    command.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="change parameters: data.seed=1")

    command = _command(
        add,
        "repro",
        commands.repro,
        "run `dvc repro` in the folder of a study, after one that was killed too; two at once take turns",
        "",
        "runs/mine",
    )
    command.add_argument("folder", type=Path, nargs="?", default=Path("."))
    command.add_argument("stages", nargs="*", metavar="STAGE", help="of dvc.yaml; default: all")


def _data(add: Any) -> None:
    command = _command(add, "check", commands.check, "report what is wrong with a COCO-format folder", "my-coco")
    command.add_argument("folder", type=Path)

    command = _command(
        add,
        "scenes",
        commands.scenes,
        "draw the data set of a study",
        "--study runs/mine",
        "--study runs/small --params params.yaml --profile smoke",
    )
    _study_options(command)

    command = _command(
        add,
        "voc",
        commands.voc,
        "write PASCAL VOC annotations as a COCO instances file",
        "VOCdevkit/VOC2007 voc2007-test.json --classes",
    )
    command.add_argument("folder", type=Path, help="a VOCdevkit, or VOC2007 in it")
    command.add_argument("out", type=Path, metavar="OUT.json")
    command.add_argument("--split", default="test", help="a list in ImageSets/Main (test)")
    command.add_argument("--classes", action="store_true", help="also print the objects of each class")

    command = _command(
        add,
        "download",
        commands.download,
        "fetch the data and weights that a profile needs from elsewhere",
        "--profile coco --list",
    )
    command.add_argument("--params", type=Path, default=Path("params.yaml"), help="parameter file (params.yaml)")
    command.add_argument("--profile", help="profile of the parameter file; default: its top level")
    command.add_argument("--list", action="store_true", help="only say what is there, what would be fetched, how large")
    command.add_argument("--keep", action="store_true", help="keep archives after their extraction")


def _internal(add: Any) -> None:
    command = _command(
        add,
        "job",
        commands.job,
        "one job of a study (what the notebooks start on every core)",
        "train --study runs/mine --params runs/mine/params.yaml --variant deepmask",
    )
    command.add_argument("job", choices=JOBS)
    _study_options(command)
    command.add_argument("--variant", default="", help="a network (train, propose) or a method (baseline, detection)")

    command = _command(add, "readme", commands.readme, "write the results of the study into README.md", "", "--check")
    command.add_argument("--check", action="store_true", help="change nothing; exit status 1 if it is out of date")

    command = _command(
        add,
        "normalise",
        commands.normalise,
        "executed notebook without times, paths and progress",
        "_build/01_data.ipynb results/notebooks/01_data.ipynb",
    )
    command.add_argument("source", type=Path)
    command.add_argument("destination", type=Path)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _study_options(command: argparse.ArgumentParser, default: str = ".") -> None:
    command.add_argument("--study", type=Path, help=f"folder of the study ({default})")
    command.add_argument("--params", type=Path, help="parameter file (params.yaml of the study, else of this folder)")
    command.add_argument("--profile", help="profile of the parameter file; default: its top level")


if __name__ == "__main__":
    sys.exit(main())
