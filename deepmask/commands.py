"""What each command of `deepmask` does.  Imports are local: `--help` and `evaluate` should not wait for torch."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path


def propose(options: Namespace) -> None:
    """Proposals of image files: pictures, COCO results, and last a line that says so."""
    from deepmask import choosing, proposing
    from deepmask.distributed import process_group
    from deepmask.paths import Study

    images = proposing.find_images(options.images, options.out)
    ids = options.annotations and proposing.annotated_ids(images, options.annotations)
    study, params = _found_study(options)
    with process_group() as (rank, ranks):
        chosen = choosing.choose(
            options.method, Study(study), params, options.profile, weights=options.weights, count=options.count
        )
        if rank == 0 and chosen.why:
            print(chosen.why, flush=True)
        lines = proposing.propose_files(
            chosen.method,
            images,
            options.out,
            reads=chosen.reads,
            ids=ids,
            chunk=options.chunk,
            drawn=options.pictures,
            rank=rank,
            ranks=ranks,
        )
        for line in lines:
            print(line, flush=True)
        if rank == 0:
            number = f"{len(images)} image{'s' * (len(images) != 1)}"
            print(f"{number}, by {chosen.method.name}: pictures of the best and COCO results are in {options.out}")


def demo(options: Namespace) -> None:
    """One drawn scene, its objects and what DeepMask finds of them."""
    from deepmask import demo

    print(demo.run(options.out, options.scene))


def evaluate(options: Namespace) -> None:
    """Metrics of results files, and a table of them."""
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


def train(options: Namespace) -> None:
    """One trained network, with the scenes and the trunk that it needs."""
    from deepmask import studies

    for line in studies.train(options.study, options.variant, options.profile, options.data):
        print(line, flush=True)


def study(options: Namespace) -> None:
    """A run folder."""
    from deepmask.studies import prepare

    print(prepare(options.folder, options.profile, options.data, options.set))


def repro(options: Namespace) -> int:
    """`dvc repro` of a study, one at a time."""
    from deepmask import studies

    return studies.repro(options.folder, options.stages)


def check(options: Namespace) -> int:
    """A report on a COCO-format folder; exit status 1 if it has errors."""
    from deepmask.data.check import check_folder, format_report

    report = check_folder(options.folder)
    print(format_report(report))
    return 1 if report.errors else 0


def scenes(options: Namespace) -> None:
    """The drawn scenes of a study."""
    from deepmask import config, paths, studies

    root, params = _own_study(options)
    study, data = paths.study(root), config.load(params, options.profile).data
    studies.draw_scenes(study, data)
    val = data.reported_images + data.tuning_images
    print(f"{study.scenes}: {data.train_images} training and {val} validation scenes")


def voc(options: Namespace) -> None:
    """PASCAL's annotations in COCO's format."""
    from deepmask.data import voc

    print(f"{options.out}: {voc.describe(voc.write_coco(options.folder, options.out, options.split), options.classes)}")


def download(options: Namespace) -> None:
    """What a profile needs from elsewhere."""
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


def job(options: Namespace) -> None:
    """One process of a job, as torchrun started it."""
    from importlib import import_module

    from deepmask import config, paths
    from deepmask.stages import launch

    root, params = _own_study(options)
    job = import_module(f"deepmask.stages.{options.job}").job
    launch.run(options.job, job, paths.study(root), config.load(params, options.profile), options.variant)


def readme(options: Namespace) -> int:
    """The results in README.md, or whether they are current."""
    from deepmask import readme
    from deepmask.paths import REPOSITORY, Study

    path, study = REPOSITORY / "README.md", Study(REPOSITORY)
    if options.check:
        current = readme.updated(path.read_text(encoding="utf-8"), study) == path.read_text(encoding="utf-8")
        print("README.md shows the current results" if current else "README.md is out of date: run it without --check")
        return int(not current)
    print("README.md updated" if readme.update(path, study) else "README.md shows the current results")
    return 0


def normalise(options: Namespace) -> None:
    """An executed notebook as it is committed."""
    from deepmask.notebooks import normalise

    normalise(options.source, options.destination)


def _own_study(options: Namespace) -> tuple[Path, Path]:
    """Folder and parameter file of the study that a command writes into; the file may be missing."""
    study = options.study or Path(".")
    beside = study / "params.yaml"
    return study, options.params or (beside if beside.is_file() else Path("params.yaml"))


def _found_study(options: Namespace) -> tuple[Path, Path]:
    """Folder and parameter file of the study that a command only reads: the repository's where there is no other."""
    from deepmask.paths import REPOSITORY

    here = Path("params.yaml").is_file()
    study = options.study or (Path(".") if here or options.params else REPOSITORY)
    beside = study / "params.yaml"
    return study, options.params or next((path for path in (beside, Path("params.yaml")) if path.is_file()), beside)
