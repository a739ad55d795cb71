"""The benchmark: FLOPs against a derivation by hand, times that add up, a report that hides nothing."""

import dataclasses
import json
import re
import socket
import time
from pathlib import Path

import pytest
import torch

from benchmarks import __main__ as program
from benchmarks import flops, hardware, layers, report, timing, train
from deepmask import config as configs

ROOT = Path(__file__).resolve().parent.parent
CPU = torch.device("cpu")


def profile(name):
    return configs.load(ROOT / "params.yaml", name)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The files that `python -m benchmarks --quick` writes, and the JSON."""
    folder = tmp_path_factory.mktemp("out")
    assert program.main(["--quick", "--out", str(folder)]) == 0
    (path,) = folder.glob("*.json")
    return path, json.loads(path.read_text())


# --- FLOPs -----------------------------------------------------------------------------------------------------------


def by_hand(config):
    """GFLOP of a patch by branch: multiply-adds of every layer, times two, times three for the two gradients."""
    side, channels, trunk = config.geometry.window, 3, []
    for group, widths in enumerate(((64,), (128,), (256, 256), (512, 512), (512, 512))):
        for width in widths:
            out = round(width * config.model.width)
            trunk.append(side**2 * 9 * channels * out)
            channels = out
        if group < config.geometry.pools:
            side //= 2
    cells, rank, mask = config.geometry.features**2, config.model.rank, config.geometry.mask**2
    first, second = config.model.score_hidden
    heads = {
        "mask": cells * channels**2 + cells * channels * rank + rank * mask,
        "score": (config.geometry.features // 2) ** 2 * channels * first + first * second + second,
    }
    # the image itself needs no gradient
    return {name: 2 * (3 * (sum(trunk) + head) - trunk[0]) / 1e9 for name, head in heads.items()}


@pytest.mark.parametrize("name", ["smoke", "mini", "scenes", "coco"])
def test_flops_of_a_patch_are_those_derived_by_hand(name):
    config = profile(name)
    assert flops.of_patch(config) == pytest.approx(by_hand(config), rel=1e-6)


def test_flops_at_the_size_of_the_paper():
    config = profile("coco")
    assert flops.of_patch(config) == pytest.approx({"mask": 45.4, "score": 44.8}, abs=0.05)
    image = flops.of_image(config, 480, 640)  # 647, 132 and 53 + 4.4 billion multiply-adds
    assert image == pytest.approx({"trunk": 2 * 647, "score": 2 * 132, "mask logits": 2 * 57.4}, rel=0.01)


def test_flops_of_the_layers_add_up_to_those_of_a_patch():
    config = profile("smoke")
    rows = layers.measure(config, 2, CPU, least=1e-4)
    of = {branch: sum(row["gflop"] for row in rows if _in(row, branch)) for branch in ("mask", "score")}
    assert of == pytest.approx({branch: 2 * value for branch, value in flops.of_patch(config).items()})
    for row in (layers.judged(row, tflops=2.0, gbs=4.0) for row in rows):
        assert row["ms"] > 0 and row["mb"] > 0
        ideal = max(row["gflop"] / 2e3, row["mb"] / 4e3)  # seconds
        assert row["share"] * row["ms"] == pytest.approx(ideal * 1e3)
        assert row["bound_tflops"] <= 2.0
        if row["gflop"]:
            assert row["share"] == pytest.approx(row["tflops"] / row["bound_tflops"])


def _in(row, branch):
    return row["layer"].split()[0] not in {"mask", "score"} - {branch}


def test_the_better_of_two_ceilings():
    other = {**CEILING, "best_tflops": {"bf16": 0.8, "fp32": 2.0}, "copy_gbs": 3.0}
    for best in (hardware.better(CEILING, other), hardware.better(other, CEILING)):
        assert best["best_tflops"] == {"bf16": 1.0, "fp32": 2.0} and best["copy_gbs"] == 3.0
        assert best["varied"] == pytest.approx(0.5) and best["threads"] == 1
    same = hardware.better(CEILING, CEILING)
    for ceiling, load, warned in ((best, 0.1, True), (same, 0.1, False), (same, 1.5, True)):
        environment = {"device": "cpu", "cores": 2, "processor": "x", "python": "3", "packages": {"torch": "2"}}
        result = {"environment": environment, "hardware": [ceiling], "load_before": load}
        text = report.markdown({**result, "training": [], "inference": [], "layers": []})
        assert ("Other programs may have been running" in text) == warned


# --- time ------------------------------------------------------------------------------------------------------------


def test_seconds_of_a_call():
    calls = []

    def work():
        calls.append(1)
        time.sleep(0.002)

    took = timing.seconds(work, CPU, warm_up=2, least=0.03)
    assert 0.002 <= took < 0.05 and len(calls) > 5
    assert timing.seconds(lambda: time.sleep(0.02), CPU, warm_up=0, least=0.01) >= 0.02, "one call is enough"


def test_laps_add_up_and_forget_what_is_before():
    laps = timing.Laps(CPU)
    time.sleep(0.02)
    laps.restart()
    for name in "aba":
        time.sleep(0.003)
        laps.lap(name)
    assert list(laps.parts) == ["a", "b"] and 0.006 <= laps.parts["a"] and 0.003 <= laps.parts["b"]
    assert sum(laps.parts.values()) < 0.02 + 0.009


def test_a_function_is_watched_only_for_a_while():
    original = time.sleep
    with timing.watched(time, "sleep") as spent:
        time.sleep(0.002)
        time.sleep(0.002)
    assert len(spent) == 2 and min(spent) >= 0.002 and time.sleep is original
    with timing.watched(time, "no_such_function") as spent:
        pass
    assert spent == []


def test_the_clock_ends_a_run_and_leaves_out_the_warm_up(monkeypatch):
    ticks = iter([10.0, 12.0, 14.0, 16.5, 99.0])
    monkeypatch.setattr(timing, "now", lambda device: next(ticks))
    clock = train.Clock(CPU, seconds=6.0)
    assert [clock.measure(None) for _ in range(3)] == [{}] * 3
    with pytest.raises(train.TimeIsUp):
        clock.measure(None)
    assert clock.interval == pytest.approx(6.5 / 3)


# --- what is written -------------------------------------------------------------------------------------------------


def test_what_is_measured_is_plausible(measured):
    _, result = measured
    (row,) = result["training"]
    assert 0 < row["data_patches_per_s"] and 0 < row["synthetic_patches_per_s"]
    assert 0 < row["synthetic_utilisation"] < 1.1 and 0 < row["data_utilisation"] < 1.1
    rate = row["synthetic_patches_per_s"] * row["gflop_per_patch"] / 1e3
    assert rate / result["hardware"][0]["best_tflops"][row["precision"]] == pytest.approx(
        row["synthetic_utilisation"], rel=1e-3
    )
    assert set(row["parts_ms"]) == {"data", "forward", "backward", "optimiser"} and min(row["parts_ms"].values()) > 0
    assert row["data_to_synthetic"] == pytest.approx(row["data_patches_per_s"] / row["synthetic_patches_per_s"], 1e-3)
    without_data = sum(spent for name, spent in row["parts_ms"].items() if name != "data")
    assert 1 / 3 < without_data * row["synthetic_patches_per_s"] / row["batch"] / 1e3 < 3
    (row,) = result["inference"]
    assert min(row["parts_ms"].values()) >= 0 and 0 < row["network_utilisation"] < 1.1
    assert 1 / 3 < sum(row["parts_ms"].values()) / row["total_ms"] < 3
    assert row["network_ms"] < sum(row["parts_ms"].values()) + 1e-2
    assert sum(row["proposals_by_scale"]) == row["proposals"] == profile("smoke").propose.count
    for row in result["hardware"]:
        for kind, best in row["best_tflops"].items():
            assert best >= max(row["matrix_tflops"][kind].values()) > 0
        assert row["copy_gbs"] > 0
    names = [row["layer"] for row in result["layers"][0]["rows"] if row["direction"] == "forward"]
    assert [name for name in names if name.startswith("conv")] == [f"conv{k}" for k in range(1, 9)]


def test_no_trace_of_the_machine_or_the_day(measured):
    path, _ = measured
    for text in (path.read_text(), path.with_suffix(".md").read_text()):
        assert str(ROOT) not in text and str(path.parent) not in text and str(Path.home()) not in text
        assert not re.search(r'[" ]/\w+/\w', text), "an absolute path"
        assert not re.search(r"\b20\d\d-\d\d-\d\d", text), "a date"
        assert len(socket.gethostname()) < 4 or socket.gethostname() not in text


def test_the_report_is_made_of_the_json(measured):
    path, result = measured
    text = path.with_suffix(".md").read_text()
    assert text == report.markdown(result)
    assert path.stem == report.slug(result["environment"])
    ceiling, aims, training = (text.index(name) for name in ("## Ceiling", "## Targets", "## Training"))
    assert ceiling < aims < training
    assert f"{result['training'][0]['synthetic_patches_per_s']:.4g}" in text
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1, "columns of one table"


def test_targets():
    environment = {"device": "NVIDIA H200", "cores": 16, "processor": "x"}
    trained = {"profile": "coco", "data_utilisation": 0.45, "data_to_synthetic": 0.85}
    image = {"profile": "coco", "network_ms": 7.0, "total_ms": 30.0, "network_utilisation": 0.3}
    others = [{**trained, "profile": "mini", "data_utilisation": 0.9}, {"profile": "coco", "failed": "MemoryError"}]
    result = {"environment": environment, "training": [trained, *others], "inference": [image]}
    assert [target.reached for target in report.targets(result)] == [True, False, True, False, None]
    result["environment"] = {**environment, "device": "cpu"}
    assert [target.reached for target in report.targets(result)] == [None, False, None, None, False]
    empty = {"environment": environment, "training": [], "inference": []}
    assert {target.verdict for target in report.targets(empty)} == {"does not apply"}


def test_a_failure_is_written_down_and_ends_nothing_else(tmp_path, monkeypatch):
    def fails(*arguments):
        raise RuntimeError(f"out of memory in {tmp_path}")

    monkeypatch.setattr(program.train, "measure", fails)
    threads = None if torch.cuda.is_available() else 1
    monkeypatch.setattr(program.hardware, "ceiling", lambda *arguments: {**CEILING, "threads": threads})
    assert program.main(["--quick", "--only", "training", "inference", "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("*.json")
    result = json.loads(path.read_text())
    assert result["training"][0]["failed"] == "RuntimeError" and result["inference"][0]["total_ms"] > 0
    assert "failed: RuntimeError" in path.with_suffix(".md").read_text()
    assert program.main(["--quick", "--only", "layers", "--minutes", "-1", "--out", str(tmp_path)]) == 0
    assert json.loads(path.read_text())["layers"][0]["failed"] == "no time was left"


CEILING = {
    "threads": 1,
    "matrix_tflops": {"bf16": {"8": 1.0}, "fp32": {"8": 1.0}},
    "convolution_tflops": {"bf16": 1.0, "fp32": 1.0},
    "best_tflops": {"bf16": 1.0, "fp32": 1.0},
    "copy_gbs": 1.0,
}


def test_user_errors_are_one_sentence(capsys, tmp_path):
    assert program.main(["--profile", "nowhere", "--out", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "no profile 'nowhere'" in said and said.count("\n") == 1


@pytest.mark.parametrize("kind", ["cuda", "cpu"])
def test_the_plan_has_the_paper_s_network_and_the_small_one(kind, tmp_path):
    options = program.parser().parse_args(["--out", str(tmp_path)])
    jobs = program.plan(options, torch.device(kind))
    assert {("training", "mini"), ("training", "coco"), ("inference", "coco"), ("layers", "coco")} <= {
        (job.section, job.profile) for job in jobs
    }
    cases = [dataclasses.astuple(job.arguments["case"]) for job in jobs if job.section == "training"]
    assert {job.threads is None for job in jobs} == {kind == "cuda"}
    if kind == "cuda":
        assert {(32, False), (32, True), (256, False), (256, True)} <= {(case[0], case[2]) for case in cases}
