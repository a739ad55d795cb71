"""Weights on disk: what is loaded is what was saved, and anything else is refused by name."""

import json

import pytest
import torch
from safetensors.torch import save_file

from deepmask.config import ModelConfig, to_dict
from deepmask.geometry import Geometry
from deepmask.model import DeepMask
from deepmask.weights import WeightsError, load_model, load_tensors, save_model, save_tensors

GEOMETRY = Geometry(patch=32, canonical=16, stride=4, mask=12, jitter=2.0, negative=6.0)
CONFIG = ModelConfig(width=0.05, rank=None, score_hidden=(8, 12))


def test_round_trip_needs_no_other_file(tmp_path):
    torch.manual_seed(0)
    model = DeepMask(GEOMETRY, CONFIG).eval()
    save_model(tmp_path / "m.safetensors", model, {"variant": "deepmaskfull"})
    loaded = load_model(tmp_path / "m.safetensors")
    assert (loaded.geometry, loaded.config) == (GEOMETRY, CONFIG)
    x = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(model(x, "mask"), loaded(x, "mask")) and torch.equal(model(x, "score"), loaded(x, "score"))
    assert load_tensors(tmp_path / "m.safetensors")[1]["variant"] == "deepmaskfull"


def test_same_weights_are_the_same_bytes(tmp_path):
    for name in "ab":
        torch.manual_seed(0)
        save_model(tmp_path / name, DeepMask(GEOMETRY, CONFIG), {"x": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"], "no temporary file is left"


def test_wrong_files_are_refused_by_name(tmp_path):
    with pytest.raises(WeightsError, match="nothing.*no such weights file"):
        load_model(tmp_path / "nothing")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(WeightsError, match="text.*not a readable safetensors file"):
        load_model(tmp_path / "text")
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign")
    with pytest.raises(WeightsError, match="foreign.*no record"):
        load_model(tmp_path / "foreign")
    save_tensors(tmp_path / "trunk", {"a": torch.zeros(1)}, {"pretrain": {}})
    with pytest.raises(WeightsError, match="trunk.*geometry"):
        load_model(tmp_path / "trunk")


def test_a_truncated_file_is_refused(tmp_path):
    save_model(tmp_path / "m", DeepMask(GEOMETRY, CONFIG), {})
    whole = (tmp_path / "m").read_bytes()
    for end in (4, 100, len(whole) - 1):
        (tmp_path / "cut").write_bytes(whole[:end])
        with pytest.raises(WeightsError, match="cut"):
            load_model(tmp_path / "cut")


def test_an_unknown_parameter_in_the_record_is_refused(tmp_path):
    model = DeepMask(GEOMETRY, CONFIG)
    record = {"geometry": {"patch": 32, "depth": 3}, "model": {}}
    save_tensors(tmp_path / "m", model.state_dict(), record)
    with pytest.raises(WeightsError, match="m: not the weights.*depth"):
        load_model(tmp_path / "m")
    assert json.dumps(record)  # as it stands in the file


@pytest.mark.parametrize(
    "section, key, value",
    [
        ("geometry", "stride", 0),
        ("geometry", "stride", -4),
        ("geometry", "patch", 0),
        ("geometry", "patch", 32_000_000),
        ("geometry", "mask", 0),
        ("geometry", "mask", 10**9),
        ("geometry", "jitter_octaves", 1e300),
        ("geometry", "jitter", 10**400),
        ("model", "width", 1e12),
        ("model", "width", float("nan")),
        ("model", "width", 1e300),
        ("model", "rank", -1),
        ("model", "rank", 10**12),
        ("model", "score_hidden", [10**12, 10**12]),
        ("model", "score_hidden", [0, 0]),
        ("model", "dropout", 2.0),
        ("model", "dropout", float("nan")),
        ("model", "init", "none"),
    ],
)
def test_a_record_that_does_not_fit_its_tensors_allocates_nothing(tmp_path, section, key, value):
    model = DeepMask(GEOMETRY, CONFIG)
    record = {"geometry": to_dict(GEOMETRY), "model": to_dict(CONFIG)}
    record[section] = record[section] | {key: value}
    save_tensors(tmp_path / "m", model.state_dict(), record)
    with pytest.raises(WeightsError, match="m: not the weights of a DeepMask: ") as error:
        load_model(tmp_path / "m")
    assert "\n" not in str(error.value)


def test_a_stride_beyond_the_trunk_is_refused(tmp_path):
    """Its patches would fit the tensors, and no image the memory."""
    geometry = Geometry(patch=2**21, canonical=16, stride=2**20, mask=12, jitter=2.0)
    save_model(tmp_path / "m", DeepMask(geometry, CONFIG), {})
    with pytest.raises(WeightsError, match="stride 1048576 takes more pools"):
        load_model(tmp_path / "m")


def test_tensors_of_another_kind_are_named(tmp_path):
    model, name = DeepMask(GEOMETRY, CONFIG), "score_head.fc2.bias"
    record = {"geometry": to_dict(GEOMETRY), "model": to_dict(CONFIG)}
    tensors = model.state_dict()
    changes = {
        "is missing": {key: value for key, value in tensors.items() if key != name},
        "is not part of it": {**tensors, name + "2": torch.zeros(1)},
        r"is \(3,\), but its record asks for \(12,\)": {**tensors, name: torch.zeros(3)},
        "is of torch.int32": {**tensors, name: tensors[name].int()},
        "is of torch.complex64": {**tensors, name: tensors[name].to(torch.complex64)},
        "has values that are not finite": {**tensors, name: tensors[name] * float("nan")},
    }
    for message, changed in changes.items():
        save_tensors(tmp_path / "m", changed, record)
        with pytest.raises(WeightsError, match=f"m: .*{name}2? {message}"):
            load_model(tmp_path / "m")


def test_a_record_nested_without_end_is_refused(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "m", {"deepmask": "[" * 100_000})
    with pytest.raises(WeightsError, match="m: not a readable safetensors file"):
        load_model(tmp_path / "m")
    (tmp_path / "folder").mkdir()
    with pytest.raises(WeightsError, match="folder: no such weights file"):
        load_model(tmp_path / "folder")
