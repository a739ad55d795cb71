"""Run folders, executed notebooks, and the commands that a user types."""

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import yaml

from deepmask import masks, results_file
from deepmask.__main__ import main
from deepmask.config import ConfigError, load
from deepmask.notebooks import NotebookError, normalise
from deepmask.proposals import Proposals
from deepmask.studies import prepare, repro

ROOT = Path(__file__).resolve().parent.parent


def test_run_folder_has_the_profile_the_data_and_the_chain(tmp_path, tiny_coco):
    folder = prepare(tmp_path / "run", "smoke", tiny_coco)
    config = load(folder / "params.yaml")
    assert config.profile == "smoke" and config.data.root == str(tiny_coco)
    assert config.train == load(ROOT / "params.yaml", "smoke").train
    assert (folder / "dvc.yaml").read_bytes() == (ROOT / "dvc.yaml").read_bytes()
    assert (folder / yaml.safe_load((folder / "params.yaml").read_text())["src"]).resolve() == ROOT
    stages = subprocess.run([sys.executable, "-m", "dvc", "stage", "list"], cwd=folder, capture_output=True, text=True)
    assert stages.returncode == 0 and "train@deepmask20" in stages.stdout


def test_edited_parameters_of_a_run_folder_are_kept(tmp_path):
    folder = prepare(tmp_path / "run", "smoke")
    text = (folder / "params.yaml").read_text().replace("samples: 128", "samples: 64")
    (folder / "params.yaml").write_text(text)
    prepare(folder, "smoke")
    assert (folder / "params.yaml").read_text() == text
    with pytest.raises(ConfigError, match="another profile"):
        prepare(folder, "scenes")
    (folder / "params.yaml").write_text(text.replace("samples:", "sample:"))
    with pytest.raises(ConfigError, match="'sample'"):
        prepare(folder, "smoke")


def test_parameters_are_changed_by_name(tmp_path):
    folder = prepare(tmp_path / "run", "smoke", changes=["train.samples=256", "data.train_folder=train", "ranks=2"])
    config = load(folder / "params.yaml")
    assert (config.train.samples, config.data.train_folder, config.ranks) == (256, "train", 2)
    assert load(prepare(folder, "smoke", changes=["train.samples=32"]) / "params.yaml").train.samples == 32
    assert load(folder / "params.yaml").ranks == 2, "what was changed before stays"
    for change, named in [("train.sample=1", "'sample'"), ("train", "section.key=value"), ("ranks.a=1", "ranks")]:
        with pytest.raises(ConfigError, match=named):
            prepare(tmp_path / "other", "smoke", changes=[change])
    assert not (tmp_path / "other" / "params.yaml").exists(), "nothing wrong is written"


@pytest.mark.parametrize("part", [0.0, 0.3, 0.7, 0.97, 0.999, 1.0])
def test_half_a_lock_is_mended(tmp_path, part, capfd):
    """DVC writes `dvc.lock` in place; each stage keeps a copy of it."""
    folder = prepare(tmp_path / "run", "smoke")
    keep = "test ! -e dvc.lock || cp dvc.lock _build/dvc.lock"
    stages = {name: {"cmd": f"{keep}; echo 1 >> {name}", "outs": [name]} for name in ("first", "second")}
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    assert repro(folder) == 0
    whole = (folder / "dvc.lock").read_text()
    (folder / "dvc.lock").write_text(whole[: int(part * len(whole))])
    (folder / ".dvc" / "tmp" / "rwlock").write_text('{"write": {"out": {"pid": 1, "cmd": "dvc re')
    assert repro(folder) == 0
    assert (folder / "dvc.lock").read_text() == whole
    assert (folder / "first").read_text() == "1\n", "stages that the copy knows are not run again"
    assert ("left half of it" in capfd.readouterr().err) == (part < 1)


def test_a_folder_that_is_no_study_is_not_reproduced(tmp_path):
    with pytest.raises(ConfigError, match="nowhere: no dvc.yaml"):
        repro(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_missing_data_folder_is_named(tmp_path):
    with pytest.raises(ConfigError, match="nowhere: no such folder"):
        prepare(tmp_path / "run", data=tmp_path / "nowhere")
    assert not (tmp_path / "run").exists()


def executed(path, seconds, stream="stdout"):
    """An executed notebook as papermill leaves it, with times, random ids and a path."""
    out = nbformat.v4.new_output("stream", name=stream, text=f"wrote {Path.cwd()}/a.csv\n")
    noise = nbformat.v4.new_output("stream", name="stderr", text=f"{seconds} s\n")
    cell = nbformat.v4.new_code_cell("1", outputs=[out, noise], execution_count=1)
    cell.metadata.update(
        papermill={"duration": seconds}, execution={"iopub.execute_input": str(seconds)}, tags=["parameters"]
    )
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata={"papermill": {"end": seconds}}), path)


def test_normalised_notebooks_do_not_tell_when_or_where(tmp_path):
    for name, seconds in [("a", 1.5), ("b", 2.5)]:
        executed(tmp_path / f"{name}.ipynb", seconds)
        normalise(tmp_path / f"{name}.ipynb", tmp_path / "out" / f"{name}.ipynb")
    first, second = ((tmp_path / "out" / f"{name}.ipynb").read_bytes() for name in "ab")
    assert first == second and str(Path.cwd()).encode() not in first
    kept = nbformat.read(tmp_path / "out" / "a.ipynb", 4).cells[0]
    assert kept.outputs[0].text == "wrote ./a.csv\n" and len(kept.outputs) == 1 and kept.metadata.tags == ["parameters"]


def test_widgets_leave_neither_their_view_nor_their_state(tmp_path):
    """A widget has a random id; what stands beside it in the same cell stays."""
    view = "application/vnd.jupyter.widget-view+json"
    for name, id in [("a", "0f3c"), ("b", "9e71")]:
        shown = nbformat.v4.new_output(
            "display_data", data={view: {"model_id": id, "version_major": 2}, "text/plain": f"interactive({id})"}
        )
        table = nbformat.v4.new_output("display_data", data={"text/plain": "a table"})
        piece = nbformat.v4.new_output("stream", name="stdout", text="1\n")
        cell = nbformat.v4.new_code_cell("interact(f)", outputs=[piece, shown, piece, table])
        state = {"application/vnd.jupyter.widget-state+json": {"state": {id: {"model_name": "VBoxModel"}}}}
        notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"widgets": state})
        nbformat.write(notebook, tmp_path / f"{name}.ipynb")
        normalise(tmp_path / f"{name}.ipynb", tmp_path / "out" / f"{name}.ipynb")
    first, second = ((tmp_path / "out" / f"{name}.ipynb").read_bytes() for name in "ab")
    assert first == second and b"widget" not in first
    outputs = nbformat.read(tmp_path / "out" / "a.ipynb", 4).cells[0].outputs
    assert [output.get("text") or output.data["text/plain"] for output in outputs] == ["1\n1\n", "a table"]


def test_a_notebook_that_failed_is_not_kept(tmp_path):
    error = nbformat.v4.new_output("error", ename="KeyError", evalue="x", traceback=[])
    cells = [nbformat.v4.new_code_cell("x", outputs=[error])]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "a.ipynb")
    with pytest.raises(NotebookError, match="a.ipynb: cell 0 ended in KeyError"):
        normalise(tmp_path / "a.ipynb", tmp_path / "b.ipynb")
    assert not (tmp_path / "b.ipynb").exists()


@pytest.fixture
def perfect(tiny_coco, tmp_path):
    """Perfect proposals for every image of the validation file."""
    instances = json.loads((tiny_coco / "annotations/instances_val.json").read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in instances["images"]}
    made = []
    for image_id, size in sizes.items():
        of_image = [a for a in instances["annotations"] if a["image_id"] == image_id and not a["iscrowd"]]
        rles = [masks.from_segmentation(a["segmentation"], *size) for a in of_image]
        boxes = np.array([a["bbox"] for a in of_image]).reshape(-1, 4)
        made.append(Proposals.ranked(image_id, np.linspace(1, 0.5, len(rles)), boxes, rles))
    results_file.write(tmp_path / "perfect.json", made)
    return tmp_path / "perfect.json"


def test_evaluate_prints_the_metrics_of_any_results_file(tiny_coco, perfect, capsys):
    annotations = str(tiny_coco / "annotations/instances_val.json")
    assert main(["evaluate", str(perfect), "--annotations", annotations]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("AR@10", "AR@100", "AR@1000", "AUC", "AUC_S", "boxes", "masks"))
    boxes = next(line for line in printed.splitlines() if line.startswith("boxes"))
    assert boxes.split()[1:4] == ["1.000"] * 3, "perfect proposals have recall 1"


def test_errors_of_a_user_end_in_one_sentence(tiny_coco, tmp_path, capsys):
    annotations = str(tiny_coco / "annotations/instances_val.json")
    for arguments, named in [
        (["evaluate", str(tmp_path / "no.json"), "--annotations", annotations], "no.json"),
        (
            ["job", "train", "--study", str(tmp_path), "--params", str(tmp_path / "p.yaml"), "--variant", "deepmask"],
            "p.yaml",
        ),
        (["study", str(tmp_path / "run"), "--profile", "tiny"], "'tiny'"),
    ]:
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert named in error and error.count("\n") == 1 and "Traceback" not in error


def test_check_reports_and_exits_by_what_it_found(tiny_coco, capsys):
    assert main(["check", str(tiny_coco)]) == 0
    instances = tiny_coco / "annotations/instances_val.json"
    content = json.loads(instances.read_text())
    content["annotations"][0]["image_id"] = 10**6
    instances.write_text(json.dumps(content))
    assert main(["check", str(tiny_coco)]) == 1
    assert str(content["annotations"][0]["id"]) in capsys.readouterr().out
