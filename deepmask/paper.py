"""What the paper reports: the one place that holds its numbers.  Each is compared with ours, none is computed with."""

from __future__ import annotations

from dataclasses import dataclass

# Key in file names and parameters -> name in the tables, in the order of Table 1
METHODS = {
    "edgeboxes": "EdgeBoxes",
    "geodesic": "Geodesic",
    "rigor": "Rigor",
    "selectivesearch": "SelectiveSearch",
    "mcg": "MCG",
    "deepmask20": "DeepMask20",
    "deepmask20star": "DeepMask20*",
    "deepmaskzoom": "DeepMaskZoom",
    "deepmaskfull": "DeepMaskFull",
    "deepmask": "DeepMask",
}

BOX_METRICS = ("AR@10", "AR@100", "AR@1000", "AUC")
SEGM_METRICS = ("AR@10", "AR@100", "AR@1000", "AUC_S", "AUC_M", "AUC_L", "AUC")


def _table(metrics: tuple[str, ...], rows: dict[str, tuple]) -> dict[str, dict[str, float | None]]:
    return {method: dict(zip(metrics, values, strict=True)) for method, values in rows.items()}


# Table 1, left: box proposals on the first 5000 images of COCO val2014; None: not reported
TABLE1_BOX = _table(
    BOX_METRICS,
    {
        "EdgeBoxes": (0.074, 0.178, 0.338, 0.139),
        "Geodesic": (0.040, 0.180, 0.359, 0.126),
        "Rigor": (None, 0.133, 0.337, 0.101),
        "SelectiveSearch": (0.052, 0.163, 0.357, 0.126),
        "MCG": (0.101, 0.246, 0.398, 0.180),
        "DeepMask20": (0.139, 0.286, 0.431, 0.217),
        "DeepMask20*": (0.152, 0.306, 0.432, 0.228),
        "DeepMaskZoom": (0.150, 0.326, 0.482, 0.242),
        "DeepMaskFull": (0.149, 0.310, 0.442, 0.231),
        "DeepMask": (0.153, 0.313, 0.446, 0.233),
    },
)

# Table 1, right: segmentation proposals on the same images (EdgeBoxes has none)
TABLE1_SEGM = _table(
    SEGM_METRICS,
    {
        "Geodesic": (0.023, 0.123, 0.253, 0.013, 0.086, 0.205, 0.085),
        "Rigor": (None, 0.094, 0.253, 0.022, 0.060, 0.178, 0.074),
        "SelectiveSearch": (0.025, 0.095, 0.230, 0.006, 0.055, 0.214, 0.074),
        "MCG": (0.077, 0.186, 0.299, 0.031, 0.129, 0.324, 0.137),
        "DeepMask20": (0.109, 0.215, 0.314, 0.020, 0.227, 0.317, 0.164),
        "DeepMask20*": (0.123, 0.233, 0.314, 0.020, 0.257, 0.321, 0.175),
        "DeepMaskZoom": (0.127, 0.261, 0.366, 0.068, 0.263, 0.308, 0.194),
        "DeepMaskFull": (0.118, 0.235, 0.323, 0.020, 0.244, 0.342, 0.176),
        "DeepMask": (0.126, 0.245, 0.331, 0.023, 0.266, 0.336, 0.183),
    },
)
TABLE1 = {"bbox": TABLE1_BOX, "segm": TABLE1_SEGM}

# Table 2: box proposals on PASCAL VOC 2007 test
TABLE2 = _table(
    BOX_METRICS,
    {
        "EdgeBoxes": (0.203, 0.407, 0.601, 0.309),
        "Geodesic": (0.121, 0.364, 0.596, 0.230),
        "Rigor": (0.164, 0.321, 0.589, 0.239),
        "SelectiveSearch": (0.085, 0.347, 0.618, 0.241),
        "MCG": (0.232, 0.462, 0.634, 0.344),
        "DeepMask": (0.337, 0.561, 0.690, 0.433),
    },
)

# The 20 PASCAL classes under their COCO names: what DeepMask20 is trained on (section 4, Generalization)
PASCAL_CATEGORIES = (
    "person", "bird", "cat", "cow", "dog", "horse", "sheep",
    "airplane", "bicycle", "boat", "bus", "car", "motorcycle", "train",
    "bottle", "chair", "dining table", "potted plant", "couch", "tv",
)  # fmt: skip


@dataclass(frozen=True)
class Quote:
    """A number in the text of the paper."""

    value: float
    unit: str
    where: str


QUOTES = {
    "parameters": Quote(75e6, "parameters, approximately", "section 3.4"),
    "parameters_full": Quote(300e6, "parameters of DeepMaskFull, more than", "section 4, Architecture"),
    "training_days": Quote(5, "days on one K40m", "section 3.4"),
    "threshold_coco": Quote(0.2, "mask threshold on COCO", "section 3.4"),
    "threshold_pascal": Quote(0.1, "mask threshold on PASCAL", "section 3.4"),
    "images": Quote(5000, "first images of COCO val2014", "section 4"),
    "small": Quote(32, "px; S is below its square", "section 4, Scale"),
    "large": Quote(96, "px; L is above its square", "section 4, Scale"),
    "seconds_coco": Quote(1.6, "s per COCO image", "section 4, Speed"),
    "seconds_pascal": Quote(1.2, "s per PASCAL image", "section 4, Speed"),
    "seconds_geodesic": Quote(1, "s per PASCAL image, approximately", "section 4, Speed"),
    "seconds_mcg": Quote(30, "s per PASCAL image, approximately", "section 4, Speed"),
    "batched_saving": Quote(0.3, "of the time if all scales are one batch, approximately", "section 4, Speed"),
    "map_100": Quote(0.682, "mAP of Fast R-CNN with 100 DeepMask proposals", "section 4, Detection"),
    "map_500": Quote(0.699, "mAP of Fast R-CNN with 500 DeepMask proposals", "section 4, Detection"),
    "map_selectivesearch": Quote(0.669, "mAP with 2000 SelectiveSearch proposals", "section 4, Detection"),
}
