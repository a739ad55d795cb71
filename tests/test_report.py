"""The table beside the paper's, the paper's numbers themselves, and figures that come out the same every time."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from deepmask import figures, paper, report
from deepmask.evaluation import AUC_COUNTS, METRICS

matplotlib.use("Agg")
PROVENANCE = report.Provenance("mini", 200, 0, "make repro")


def measured(methods=("deepmask20star", "deepmask", "deepmaskzoom", "other"), kinds=("segm", "bbox")):
    values = np.random.default_rng(0).random((len(methods) * len(kinds), len(METRICS)))
    rows = pd.DataFrame(values, columns=list(METRICS))
    return rows.assign(method=list(methods) * len(kinds), kind=np.repeat(kinds, len(methods)))


def test_published_auc_is_the_log_average_of_published_recall():
    """AR@1 is not published; with a sixth of AR@10 the trapezoid gives every DeepMask row and most others."""
    for table in paper.TABLE1.values():
        for method, row in table.items():
            ar_10 = row["AR@10"] or 0
            auc = (0.16 * ar_10 / 2 + ar_10 + row["AR@100"] + row["AR@1000"] / 2) / 3
            assert auc == pytest.approx(row["AUC"], abs=0.002 if method.startswith("DeepMask") else 0.009)
    assert set(paper.TABLE1_BOX) == set(paper.METHODS.values()) and len(paper.TABLE2) == 6
    assert len(set(paper.PASCAL_CATEGORIES)) == 20


def test_size_parts_average_to_the_whole():
    """The published AUCs by size are those of the parts of the same objects: one set of weights fits all rows."""
    rows = np.array([[row[f"AUC{size}"] for size in ("_S", "_M", "_L", "")] for row in paper.TABLE1_SEGM.values()])
    weights, *_ = np.linalg.lstsq(rows[:, :3], rows[:, 3], rcond=None)
    np.testing.assert_allclose(rows[:, :3] @ weights, rows[:, 3], atol=0.001)
    assert weights.sum() == pytest.approx(1, abs=0.02)


def test_table_has_measured_rows_in_the_papers_order():
    rows = measured()
    table = report.table1(rows)
    assert table["kind"].tolist() == ["bbox"] * 4 + ["segm"] * 4
    assert table["method"].tolist() == ["DeepMask20*", "DeepMaskZoom", "DeepMask", "other"] * 2
    ours = rows[(rows["method"] == "deepmaskzoom") & (rows["kind"] == "segm")].iloc[0]
    row = table[(table["method"] == "DeepMaskZoom") & (table["kind"] == "segm")].iloc[0]
    assert row["AUC_S"] == ours["AUC_S"] and row["AUC_S paper"] == 0.068
    box = table[table["kind"] == "bbox"].iloc[0]
    assert np.isnan(box["AUC_L paper"]) and box["AR@100 paper"] == 0.306


def test_written_table_is_the_same_whatever_the_order_of_rows(tmp_path):
    rows = measured()
    rows.loc[0, "AUC_S"] = np.nan
    first = report.write_table1(rows, tmp_path / "a", PROVENANCE)
    second = report.write_table1(rows.sample(frac=1, random_state=1), tmp_path / "b", PROVENANCE)
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    again = pd.read_csv(first[0])
    assert again.shape == (8, 3 + 14 + 4) and set(again["command"]) == {"make repro"} and set(again["images"]) == {200}
    np.testing.assert_allclose(again["AR@10"], report.table1(rows)["AR@10"], atol=5e-4)
    text = first[1].read_text()
    for part in ("`mini`", "200 images", "seed 0", "`make repro`", "DeepMask20\\*", "(.233)", "– (.020)", "(–)"):
        assert part in text
    assert "Not measured: EdgeBoxes" in text and len({line.count("|") for line in text.splitlines()}) == 3
    assert b"\r" not in first[0].read_bytes() + first[1].read_bytes()


def test_measurements_are_read_from_files(tmp_path):
    rows = measured()
    for name, part in rows.groupby("method"):
        part.to_csv(tmp_path / f"{name}.csv", index=False)
    pd.testing.assert_frame_equal(report.table1(report.read_measured(*tmp_path.iterdir())), report.table1(rows))
    with pytest.raises(report.ReportError, match="none.csv: no such measurements"):
        report.read_measured(tmp_path / "none.csv")
    with pytest.raises(report.ReportError, match="without the column 'AUC_M'"):
        report.table1(rows.drop(columns="AUC_M"))
    with pytest.raises(report.ReportError, match="DeepMask .* measured twice"):
        report.table1(pd.concat([rows, rows[rows["method"] == "deepmask"].assign(method="DeepMask")]))


def curves(methods, ends):
    groups = [("bbox", "all"), ("segm", "all"), ("segm", "small"), ("segm", "medium"), ("segm", "large")]
    return pd.DataFrame(
        [
            (method, kind, group, count, end * np.log10(count + 1) / 3)
            for method, end in zip(methods, ends, strict=True)
            for kind, group in groups
            for count in AUC_COUNTS
        ],
        columns=["method", "kind", "group", "count", "ar"],
    )


@pytest.mark.parametrize("ends", [np.full(10, 0.3), np.linspace(0.3, 0.31, 10), np.linspace(0, 0.5, 10), np.zeros(10)])
def test_names_at_the_ends_of_lines_do_not_overlap(ends):
    table = curves(paper.METHODS, ends)
    fig = figures.ar_curves(table[table["group"].isin(["small", "large"])])
    fig.draw_without_rendering()
    assert len(fig.axes) == 2
    for ax in fig.axes:
        boxes = sorted((Text.get_window_extent(text) for text in ax.texts), key=lambda box: box.y0)
        assert len(boxes) == 10 and all(box.x0 > ax.bbox.x1 and box.x1 < fig.bbox.x1 for box in boxes)
        centres = [(box.y0 + box.y1) / 2 for box in boxes]
        assert np.diff(centres).min() > 8 * fig.dpi / 72  # 8 points is the size of the names
    by_height = [text.get_text() for text in sorted(ax.texts, key=lambda text: Text.get_window_extent(text).y0)]
    if len(set(ends)) > 1:
        assert by_height == list(paper.METHODS.values())


def test_labels_stay_where_there_is_room():
    np.testing.assert_allclose(figures._apart([50, 10, 30], 10, 0, 100), [50, 10, 30])
    np.testing.assert_allclose(figures._apart([50, 50], 10, 0, 100), [45, 55])
    np.testing.assert_allclose(figures._apart([99, 98], 10, 0, 100), [100, 90])


def test_figures_are_saved_with_the_same_bytes(tmp_path):
    recall = pd.DataFrame(
        [(m, "segm", c, iou, 1 - iou) for m in ("deepmask", "x") for c in (10, 100) for iou in (0.5, 0.75, 1)],
        columns=["method", "kind", "count", "iou", "recall"],
    )
    for draw in (lambda: figures.ar_curves(curves(["deepmask"], [0.4])), lambda: figures.recall_curves(recall)):
        first, second = figures.save(draw(), tmp_path / "a"), figures.save(draw(), tmp_path / "new" / "b.c")
        assert [p.name for p in second] == ["b.c.svg", "b.c.png"]
        assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


def test_panels_without_data_are_left_out():
    part = curves(["deepmask"], [0.4])
    part.loc[part["group"] == "small", "ar"] = np.nan
    assert [ax.get_title(loc="left") for ax in figures.ar_curves(part[part["kind"] == "segm"]).axes] == [
        "(c) Segmentations",
        "(e) Medium objects",
        "(f) Large objects",
    ]
    with pytest.raises(ValueError, match="no curve"):
        figures.ar_curves(part[part["group"] == "small"])


def test_every_method_has_its_own_look():
    looks = {name: (figures.colour(key), str(figures.DASHES.get(name))) for key, name in paper.METHODS.items()}
    assert len(set(looks.values())) == len(set(figures.COLOURS.values())) == 10


def test_table_2_has_the_papers_rows_for_pascal(tmp_path):
    rows = measured(("mcg", "deepmask"), ("bbox",))
    csv, markdown = report.write_table2(rows, tmp_path, PROVENANCE)
    table = pd.read_csv(csv)
    assert table["method"].tolist() == ["MCG", "DeepMask"] and table["AR@100 paper"].tolist() == [0.462, 0.561]
    text = markdown.read_text()
    assert "PASCAL VOC 2007" in text and "Not measured: EdgeBoxes, Geodesic, Rigor, SelectiveSearch." in text


def test_seconds_of_edges_belong_to_the_methods_that_start_from_them(tmp_path):
    rows = pd.DataFrame(
        [(what, 3, 0.1, seconds) for what, seconds in (("edges", 0.5), ("mcg", 2.0), ("selectivesearch", 1.0))],
        columns=["what", "images", "megapixels", "median"],
    )
    table = report.write_speed(rows, tmp_path / "speed", PROVENANCE).set_index("method")
    assert table["seconds"].to_dict() == {"SelectiveSearch": 1.0, "MCG-style": 2.5}
    assert table["edges"].to_dict() == {"SelectiveSearch": 0.0, "MCG-style": 0.5}
    assert "30 s per PASCAL image" in (tmp_path / "speed.md").read_text()


def detected():
    rows = [
        (s, n, v, v - 0.1, v + 0.1) for s, v in (("selectivesearch", 0.4), ("deepmask", 0.5)) for n in (10, 100, 2000)
    ]
    return pd.DataFrame(rows, columns=["proposals", "count", "mAP", "low", "high"])


def test_figure_5_has_a_line_and_an_interval_per_source(tmp_path):
    (axis,) = figures.detection_curves(detected()).axes
    assert sorted(line.get_label() for line in axis.get_lines()) == ["DeepMask", "SelectiveSearch"]
    assert len(axis.collections) == 2 and axis.get_xscale() == "log"
    text = report.write_detection(detected(), tmp_path, PROVENANCE).read_text()
    assert ".500 (.682)" in text and ".400 (.669)" in text and "| 2000" in text
