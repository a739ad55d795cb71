"""Sound annotations and proposals with some hostile values: each ends in a result or in one sentence of ours."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import fuzz_text
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deepmask.data.coco import InstanceDataset

EXAMPLES = 200, 5_000  # of a kind of document, in short and in full
SECONDS = 20  # that one document may take

BRANCHES = ["[" * 10_000 + "]" * 10_000, "[" * 900 + "]" * 900, '{"a":' * 900 + "1" + "}" * 900]
NUMBERS = [10**400, 2**64, 2**63, 2**63 - 1, -(2**63), 2**31, 2**16, 1, 0, -1, 0.5, -0.0, 1e39, 1e308, 5e-324]
TEXTS = ["", "x" * 5000, "7", "a\0b", "a\nb", "\x1b[2J", "\ud800", "\u00e9", "/etc/passwd", "../../a.png", "a/../b.png"]
SEGMENTATIONS = [
    [[700, 700, -700, -700] * 1500],  # an outline of millions of pixels
    [[1, 1, 9, 1, 9, 10**400]],
    [[1, 1, 9, 1, 9, 1e300]],
    [[5] * 6],
    {"size": [48, 64], "counts": "P0" * 1536},
    {"size": [48, 64], "counts": "Pd4" + "l3O"},  # a run of less than no pixel
    {"size": [48, 64], "counts": [1, 1, 0, 3070]},
    {"size": [48, 64], "counts": [2**62] * 5},
    {"size": [48, 64], "counts": [-1, 3073]},
    {"size": [48.0, True], "counts": [3072]},
    {"size": [2**31, 1], "counts": [2**31]},
    {"size": [2**16, 2**16], "counts": [0]},
    {"size": [2**15, 2**15], "counts": [2**30]},
    {"size": [10**400, 1], "counts": [10**400]},
]
HOSTILE = [
    *map(json.dumps, [*NUMBERS, *TEXTS, *SEGMENTATIONS, True, False, None, [], {}, [[]], [{}], [1, 2, 3, 4]]),
    *BRANCHES,
    *["9" * 5000, "NaN", "Infinity", "-Infinity", "1e400", "-1e400", "{", "]", ",", "\ufeff"],
]
TAGS = ["<a>" * 100_000 + "</a>" * 100_000, "<object/>", "<bndbox>", "</object>", "<!---->", "<![CDATA[dog]]>"]
WORDS = [
    "1e308",
    "-1e308",
    "nan",
    "inf",
    "1_0",
    "0",
    "-1",
    "1.5",
    "50.0",
    "9" * 5000,
    "\u0663",
    "cat",
    "x" * 5000,
    "a\nb",
]
REFERENCES = ["&x;", "&#27;", "&#155;[2J", "&#133;", "&lt;", "&#xd800;", "\0", "\x1b", "\ud800", "2147483647", "65536"]
HEADS = [
    "",
    "",
    "<?a b?>",
    '<!DOCTYPE a [<!ENTITY x "50">]>',
    '<?xml version="1.0" encoding="klingon"?>',
    '<?xml version="1.0" encoding="utf-16"?>',
    '<?xml version="1.0" encoding="latin-1"?>',
    "\ufeff",
    " ",
]
ENCODINGS = ["utf-8", "utf-8", "utf-8", "utf-16", "latin-1", "utf-7"]

BOX = {"xmin": 5, "ymin": 6.5, "xmax": 20, "ymax": 30}
VOC = {
    "size": {"width": 50, "height": 40},
    "object": [{"name": "dog", "difficult": 1, "truncated": 0, "bndbox": BOX}],
}

changes = st.lists(
    st.tuples(
        st.sampled_from(["set", "set", "set", "drop", "double", "swap"]), st.integers(0, 9999), st.integers(0, 9999)
    ),
    min_size=1,
    max_size=4,
)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """The places of a document, of long lists the first, as a container and the key of one of its values."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(min(len(value), 6)):
            yield value, key
            yield from places(value[key])


def spoiled(document: Any, changed: list[tuple[str, int, int]], hostile: list[str]) -> Any:
    """The text of a JSON document after changes; `hostile` are JSON texts, which need not be sound."""
    document = json.loads(json.dumps(document))
    for what, place, other in changed:
        known = list(places(document))
        if not known:
            break
        container, key = known[place % len(known)]
        if what == "set":
            container[key] = f"HOSTILE{other % len(hostile)}."
        elif what == "drop":
            del container[key]
        elif what == "double" and isinstance(container, list):
            container.append(json.loads(json.dumps(container[key])))
        elif what == "swap":
            elsewhere, its = known[other % len(known)]
            container[key], elsewhere[its] = json.loads(json.dumps([elsewhere[its], container[key]]))
    return re.sub(r'"HOSTILE(\d+)\."', lambda found: hostile[int(found[1])], json.dumps(document))


def xml(value: Any) -> str:
    """An object's keys as elements, one after another for a list."""
    if isinstance(value, dict):
        return "".join(f"<{key}>{xml(inner)}</{key}>" for key, inner in value.items())
    return "".join(map(xml, value)) if isinstance(value, list) else str(value)


def check_all(stress: Any, name: str, strategy: Any, check: Callable[[Any], None]) -> None:
    """Check as many examples as this run takes, and count them."""
    tried = 0

    @settings(
        max_examples=stress.scale(*EXAMPLES),
        deadline=timedelta(seconds=SECONDS),
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        database=None,
    )
    @given(strategy)
    def one(example: Any) -> None:
        nonlocal tried
        check(example)
        tried += 1

    one()
    stress.count("cases", name, tried)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder; nothing may be written beside it."""
    (tmp_path / "place").mkdir()
    yield tmp_path / "place"
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


def test_coco_documents(stress, place):
    documents = [json.loads(text) for text in fuzz_text.coco_documents(place / "tiny")]
    file = place / "tiny" / "annotations" / "instances_tried.json"
    for old in file.parent.iterdir():
        old.unlink()

    def check(example):
        document, changed = example
        file.write_text(spoiled(document, changed, HOSTILE), encoding="utf-8")
        fuzz_text.look_at(file, place / "tiny" / "images")

    check_all(stress, "COCO documents", st.tuples(st.sampled_from(documents), changes), check)


def test_lists_of_images(stress, place):
    documents = [json.loads(text)["images"] for text in fuzz_text.coco_documents(place / "tiny")]
    read = fuzz_text.ids(place)

    def check(example):
        images, changed = example
        (place / "images.json").write_text(spoiled({"images": images}, changed, HOSTILE), encoding="utf-8")
        read(place / "images.json")

    check_all(stress, "lists of images", st.tuples(st.sampled_from(documents), changes), check)


def test_proposals(stress, place):
    documents = [json.loads(text) for text in fuzz_text.proposal_documents()]
    fuzz_text.coco_documents(place / "tiny")
    dataset = InstanceDataset.read(place / "tiny" / "annotations" / "instances_train.json", place / "tiny" / "images")

    def check(example):
        document, changed = example
        (place / "proposals.json").write_text(spoiled(document, changed, HOSTILE), encoding="utf-8")
        fuzz_text.read_proposals(place / "proposals.json", dataset)

    check_all(stress, "proposals with hostile values", st.tuples(st.sampled_from(documents), changes), check)


def test_voc_annotations(stress, place):
    root, hostile = fuzz_text.devkit(place), [json.dumps(text) for text in TAGS + WORDS + REFERENCES]

    def check(example):
        changed, head, encoding = example
        text = head + xml(json.loads(spoiled({"annotation": VOC}, changed, hostile)))
        content = text.encode(encoding, "surrogatepass" if encoding.startswith("utf-") else "replace")
        (root / "Annotations" / f"{fuzz_text.NAME}.xml").write_bytes(content)
        fuzz_text.convert(root)

    example = st.tuples(changes, st.sampled_from(HEADS), st.sampled_from(ENCODINGS))
    check_all(stress, "VOC annotations", example, check)
