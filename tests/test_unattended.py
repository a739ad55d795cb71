"""The unattended run: how large a study fits the time, which steps there are, and what is left when one fails."""

import dataclasses
import importlib
import json
import sys
import time
from pathlib import Path

import pandas as pd
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import budget, outcome, report, salvage, sequence, steps, unattended
from benchmarks.budget import Amounts, Rates
from deepmask import config as configs
from deepmask import masks
from deepmask.data.coco import InstanceDataset
from deepmask.model import DeepMask
from deepmask.paths import Study
from deepmask.proposals import Proposals
from deepmask.sampling import PatchSampler
from deepmask.training import train
from deepmask.weights import load_model

ROOT = Path(__file__).resolve().parent.parent
SCENES = configs.load(ROOT / "params.yaml", "scenes")
RATES = Rates(scenes=150.0, pretrain=2000.0, train=6000.0, images=10.0)
NAMES = [field.name for field in dataclasses.fields(Amounts)]

some_rates = st.builds(
    Rates,
    scenes=st.floats(1, 1e4),
    pretrain=st.floats(1, 1e5),
    train=st.floats(1, 1e5),
    images=st.floats(0.1, 1e3),
)


def needed(amounts, rates, config):
    """Seconds of a study of this size, jobs started included."""
    held_out = config.data.reported_images + config.data.tuning_images
    drawn = (amounts.train_images + held_out) / rates.scenes
    working = amounts.pretrain_samples / rates.pretrain + amounts.train_samples / rates.train
    return drawn + working + 3 * budget.START + budget.proposing(rates, config)


# --- how large -------------------------------------------------------------------------------------------------------


@given(seconds=st.floats(0, 1e5), rates=some_rates)
def test_the_study_fits_the_time_and_is_never_larger_than_the_profile(seconds, rates):
    found = budget.amounts(seconds, rates, SCENES)
    whole = Amounts(SCENES.data.train_images, SCENES.pretrain.samples, SCENES.train.samples)
    least = budget.amounts(0, rates, SCENES)
    for name in NAMES:
        assert 0 < getattr(least, name) <= getattr(found, name) <= getattr(whole, name)
    if found != whole and all(getattr(found, name) > getattr(least, name) for name in NAMES):
        assert needed(found, rates, SCENES) <= seconds
    assert found.train_samples % SCENES.train.batch == 0 and found.pretrain_samples % SCENES.pretrain.batch == 0


@given(a=st.floats(0, 1e4), b=st.floats(0, 1e4), rates=some_rates)
def test_more_time_never_makes_less(a, b, rates):
    less, more = (budget.amounts(seconds, rates, SCENES) for seconds in sorted((a, b)))
    assert all(getattr(less, name) <= getattr(more, name) for name in NAMES)
    assert budget.training(min(a, b), rates, SCENES) <= budget.training(max(a, b), rates, SCENES)


def test_all_of_the_profile_if_there_is_time():
    whole = Amounts(SCENES.data.train_images, SCENES.pretrain.samples, SCENES.train.samples)
    assert budget.amounts(1e6, RATES, SCENES) == whole
    assert budget.amounts(600, RATES, SCENES) != whole


@given(seconds=st.floats(0, 5000), rates=some_rates, first=st.integers(10, 20000))
def test_a_second_network_is_trained_as_long_or_at_least_half_as_long_or_not_at_all(seconds, rates, first):
    first *= SCENES.train.batch
    samples = budget.second_network(seconds, rates, first, SCENES)
    assert samples == 0 or first / 2 <= samples <= first
    if samples:
        assert samples / rates.train + budget.proposing(rates, SCENES) + budget.START <= seconds


def test_changes_are_parameters_of_a_valid_profile(tmp_path):
    found = Amounts(train_images=1234, pretrain_samples=3200, train_samples=32 * 700)
    params = configs.read_params(ROOT / "params.yaml", "scenes")
    sequence.write_params(tmp_path / "params.yaml", params, budget.changes(found, SCENES))
    config = configs.load(tmp_path / "params.yaml")
    assert (config.data.train_images, config.pretrain.samples, config.train.samples) == (1234, 3200, 22400)
    assert config.train.eval_every == 34, "twenty looks, each after as many mask as score batches"
    assert dataclasses.replace(config.data, train_images=SCENES.data.train_images) == SCENES.data
    kept = ("eval_every", "checkpoint_every", "samples")
    assert dataclasses.replace(config.train, **{name: getattr(SCENES.train, name) for name in kept}) == SCENES.train


# --- the steps -------------------------------------------------------------------------------------------------------


def step(name, code, limit=30.0, **options):
    return steps.Step(name, steps.python("-c", code), limit, **options)


def test_a_failure_does_not_end_the_others(tmp_path):
    runner = steps.Runner(tmp_path, time.monotonic() + 60)
    assert runner.run(step("good", "print('hello')"))
    assert not runner.run(step("bad", "print('why'); raise SystemExit(3)"))
    assert not runner.run(step("after bad", "", needs=("good", "bad")))
    assert runner.run(step("after good", "", needs=("good",)))
    assert runner.run(step("instead", "raise SystemExit(1)", unless="good")), "unnecessary"
    assert not runner.run(step("late", "", reserve=59.0))
    kept = {row["name"]: row["status"] for row in json.loads((tmp_path / "steps.json").read_text())}
    assert kept == {
        "good": "done",
        "bad": "failed (exit status 3)",
        "after bad": "left out: it needs bad",
        "after good": "done",
        "late": "left out: no time was left",
    }
    assert (tmp_path / "logs/good.log").read_text() == "hello\n" and (tmp_path / "logs/bad.log").read_text() == "why\n"


def test_what_is_done_is_not_done_again(tmp_path):
    code = f"open({str(tmp_path / 'count')!r}, 'a').write('x')"
    for _ in range(2):
        assert steps.Runner(tmp_path, time.monotonic() + 60).run(step("once", code))
    assert (tmp_path / "count").read_text() == "x"
    bad = "raise SystemExit(1)"
    for code, works in ((bad, False), ("", True)):
        assert steps.Runner(tmp_path, time.monotonic() + 60).run(step("again", code)) == works


def test_a_step_ends_at_its_limit_with_all_its_processes(tmp_path):
    beat = tmp_path / "beat"
    child = f"import time\nwhile True: open({str(beat)!r}, 'a').write('x'); time.sleep(.02)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    start = time.monotonic()
    assert steps.run_limited(steps.python("-c", code), tmp_path / "log", 1.0) == "stopped after 1 s"
    assert time.monotonic() - start < 8
    size = beat.stat().st_size
    time.sleep(0.2)
    assert size > 0 and beat.stat().st_size == size


def test_the_steps_and_their_limits(tmp_path):
    total = 1500.0
    before = sequence.preparations(tmp_path, total)
    assert [step.name for step in before] == ["tests", "benchmark", "probe"]
    assert sum(step.limit for step in before) + sequence.LAST < 0.6 * total, "the study gets the larger part"
    assert all(Path(path).is_file() for path in before[0].command if path.endswith(".py"))
    assert [step.name for step in sequence.preparations(tmp_path, total, tests=False)] == ["benchmark", "probe"]
    study = sequence.data_steps(tmp_path, 60.0) + sequence.network_steps(tmp_path, "deepmask", tmp_path / "p", 60.0)
    names = [step.name for step in study]
    assert names == ["scenes", "pretrain", "train deepmask", "salvage deepmask", "propose deepmask"]
    for step in study:
        assert set(step.needs) | ({step.unless} - {""}) <= set(names[: names.index(step.name)])
    jobs = [step.command[3] for step in study if step.command[1:3] == ("-c", sequence.JOB)]
    assert jobs == ["pretrain", "train", "propose"]
    assert all(callable(importlib.import_module(f"deepmask.stages.{job}").run) for job in jobs)


def test_missing_packages_are_named():
    def load(absent):
        def load(name):
            if name in absent:
                raise ImportError(name)

        return load

    assert unattended.missing_packages(load(())) == ([], [])
    fatal, other = unattended.missing_packages(load(("pycocotools.mask", "dvc", "pytest")))
    assert len(fatal) == 1 and fatal[0].startswith("pycocotools cannot be imported")
    assert [line.split()[0] for line in other] == ["pytest", "dvc"]
    for module in (*unattended.ESSENTIAL, *unattended.LEFT_OUT):
        assert module == "higra" or importlib.import_module(module)


# --- what is left ----------------------------------------------------------------------------------------------------


def test_the_last_checkpoint_of_a_stopped_run_is_a_network(tmp_path, tiny_coco):
    params = configs.read_params(ROOT / "params.yaml", "smoke")
    sequence.write_params(tmp_path / "params.yaml", params, {"train": {"checkpoint_every": 1, "eval_every": 1}})
    config, study = configs.load(tmp_path / "params.yaml"), Study(tmp_path)
    dataset = InstanceDataset.read(tiny_coco / "annotations/instances_train.json", tiny_coco / "images")
    sampler = PatchSampler(dataset, config.geometry, config.sampling)
    model = DeepMask(config.geometry, config.model)
    train(model, sampler, config.train, checkpoint=study.checkpoint("deepmask"), stop_at=2)
    assert salvage.salvage(study, tmp_path / "params.yaml", "deepmask") == 2
    saved = load_model(study.weights("deepmask")).state_dict()
    assert all(torch.equal(value, saved[name]) for name, value in model.state_dict().items())
    assert pd.read_csv(study.result("training", "deepmask.csv")).step.tolist() == [1, 2]


def test_logs_are_kept_without_progress_and_folders():
    text = f"0%\r50%\r100% of it\n{ROOT}/deepmask/model.py failed\n{sys.prefix}/bin/python\n"
    assert outcome.tidy(text) == "100% of it\n./deepmask/model.py failed\n./bin/python\n"
    assert len(outcome.tidy("x" * 10**6)) == outcome.LOG
    assert outcome.without_paths('File "/tm' + 'p/a/b.py", and/or 1/2') == 'File ".", and/or 1/2'


def test_pictures_of_what_was_made(tiny_coco):
    dataset = InstanceDataset.read(tiny_coco / "annotations/instances_val.json", tiny_coco / "images")
    proposals = {}
    for i in (0, 2):  # the objects themselves; the image between has no proposals
        rles = masks.encode([dataset.mask(a) for a in dataset.annotations(i)])
        scores = [1.0 - 0.1 * k for k in range(len(rles))]
        proposals[int(dataset.image_ids[i])] = Proposals(0, scores, masks.boxes(rles), rles)
    figure = outcome.scenes_with_proposals(dataset, proposals, count=3)
    titles = sorted(axis.get_title() for axis in figure.axes[2::3])
    assert titles == [f"closest to each: {found} found" for found in ("0 of 1", "2 of 2", "2 of 2")]
    history = pd.DataFrame({"samples": [32, 64], "mask_loss": [0.7, 0.5], "score_loss": [0.7, 0.6]})
    history[["iou_seen", "auc_seen"]] = 0.5
    axes = outcome.training_curves({"deepmask": history, "deepmask20": history}).axes
    assert [len(axis.get_lines()) for axis in axes] == [5, 2, 2], "two losses and log 2, then one group, of each"


def test_eight_files_whatever_happened(tmp_path):
    """Even if nothing of the study was made."""
    work, out = tmp_path / "work", tmp_path / "out"
    runner = steps.Runner(work, time.monotonic() + 60)
    runner.run(step("tests", "print('1 passed')"))
    sequence.write_params(work / "params.yaml", configs.read_params(ROOT / "params.yaml", "smoke"), {})
    wrong = outcome.write(work, out, ["dvc is not here: nothing is left out"])
    made = {path.name for path in out.iterdir()}
    assert {"summary.md", "environment.json", "log.txt"} == made <= set(outcome.FILES) and len(outcome.FILES) == 8
    assert [line.split(":")[0] for line in wrong] == ["table1.csv", "training.png", "proposals.png", "benchmark.json"]
    text = (out / "summary.md").read_text()
    assert "| tests | done |" in text and "dvc is not here" in text and str(tmp_path) not in text
    assert "1 passed" in (out / "log.txt").read_text()
    assert report.slug({"device": "NVIDIA H100 80GB HBM3"}) == "nvidia-h100-80gb-hbm3"
