"""Results files of other programs: what is accepted, what is refused, and how certain their scores are."""

import json

import numpy as np
import pandas as pd
import pytest

from deepmask import results_file
from deepmask.__main__ import main
from deepmask.data.coco import InstanceDataset
from deepmask.evaluation import METRICS
from deepmask.matching import EvaluationError
from deepmask.proposals import ProposalError, Proposals
from deepmask.scoring import evaluate_file, read_covering, table


@pytest.fixture
def dataset(tiny_coco):
    return InstanceDataset.read(tiny_coco / "annotations/instances_val.json", tiny_coco / "images")


def perfect(dataset, image_id, with_masks=True):
    objects = [a for a in dataset.annotations(dataset.image_ids.tolist().index(image_id)) if not dataset.ann_crowd[a]]
    rles = [dataset.rle(a) for a in objects]
    return Proposals(
        image_id, np.linspace(1, 0.5, len(objects)), dataset.ann_boxes[objects], rles if with_masks else None
    )


def test_a_file_may_cover_more_images_than_are_asked_for(dataset, tmp_path):
    ids = dataset.image_ids.tolist()
    results_file.write(tmp_path / "all.json", [perfect(dataset, i) for i in ids])
    part = dataset.images_subset(np.array([0, 2]))
    read = read_covering(tmp_path / "all.json", part, ids)
    assert list(read) == [ids[0], ids[2]] and read[ids[2]].masks == perfect(dataset, ids[2]).masks


def test_a_file_of_other_images_is_refused(dataset, tmp_path):
    ids = dataset.image_ids.tolist()
    results_file.write(tmp_path / "one.json", [perfect(dataset, ids[0])])
    with pytest.raises(EvaluationError, match="one.json: has proposals for 1 of the 3 images .* fewer than half"):
        read_covering(tmp_path / "one.json", dataset, ids)
    results_file.write(tmp_path / "two.json", [perfect(dataset, i) for i in ids[:2]])
    assert len(read_covering(tmp_path / "two.json", dataset, ids)) == 2
    with pytest.raises(ProposalError, match=f"two.json: entry .* image_id {ids[1]} is not annotated"):
        read_covering(tmp_path / "two.json", dataset, [ids[0], ids[2]])
    (tmp_path / "wrong.json").write_text(json.dumps({"proposals": []}))
    with pytest.raises(ProposalError, match="wrong.json: not a COCO results file"):
        read_covering(tmp_path / "wrong.json", dataset, ids)


def test_the_table_has_the_values_of_each_file_within_their_intervals(dataset, tiny_coco, tmp_path):
    ids = dataset.image_ids.tolist()
    annotations = tiny_coco / "annotations/instances_val.json"
    results_file.write(tmp_path / "masks.json", [perfect(dataset, i) for i in ids[:2]])
    results_file.write(tmp_path / "boxes.json", [perfect(dataset, i, with_masks=False) for i in ids])
    sizes = {"small": 20, "large": 30}
    made = table({n: tmp_path / f"{n}.json" for n in ("masks", "boxes")}, annotations, **sizes, resamples=200)
    assert made[["method", "kind"]].values.tolist() == [["masks", "bbox"], ["masks", "segm"], ["boxes", "bbox"]]
    for row in made.to_dict("records"):
        expected = evaluate_file(tmp_path / f"{row['method']}.json", annotations, **sizes)[row["kind"]]
        for metric in METRICS:
            assert row[metric] == pytest.approx(expected[metric], nan_ok=True)
            if not np.isnan(row[f"{metric} low"]):
                assert row[f"{metric} low"] <= row[metric] <= row[f"{metric} high"]
    assert made["AR@10"].iloc[2] == made["AR@10 low"].iloc[2] == 1, "of perfect proposals nothing is uncertain"
    assert made["AR@100 low"].iloc[0] < made["AR@100 high"].iloc[0], "one of three images finds nothing"


def test_several_files_on_the_command_line_end_in_one_csv(dataset, tiny_coco, tmp_path, capsys):
    for name in ("mcg", "other"):
        results_file.write(tmp_path / f"{name}.json", [perfect(dataset, i) for i in dataset.image_ids.tolist()])
    arguments = [str(tmp_path / f"{name}.json") for name in ("mcg", "other")]
    arguments += ["--annotations", str(tiny_coco / "annotations/instances_val.json"), "--csv", str(tmp_path / "t.csv")]
    assert main(["evaluate", *arguments]) == 0
    assert capsys.readouterr().out.count("masks ") == 2
    assert pd.read_csv(tmp_path / "t.csv")["method"].tolist() == ["MCG-style", "MCG-style", "other", "other"]
