"""Weights files whose record or tensors are anything: a network of the file's own tensors, or a WeightsError."""

import random

import torch

from deepmask import released
from deepmask.config import ModelConfig, ProposeConfig, to_dict
from deepmask.geometry import Geometry
from deepmask.model import DeepMask
from deepmask.weights import WeightsError, load_tensors, save_tensors

CASES = 200, 2_000  # in short and in full
GEOMETRY = Geometry(patch=32, canonical=16, stride=4, mask=4, jitter=2.0, negative=6.0)
NUMBERS = [0, 1, 2, -1, 3, 4, 64, 10**6, 10**9, 2**40, 2**62, 2**63, 10**30, 10**400, 0.0, -0.5, 0.3, 1e-300, 1e300]
NUMBERS += [float("nan"), float("inf"), float("-inf")]
VALUES = [*NUMBERS, None, True, "", "he", "uniform", "x" * 99, [], {}, [[]], [1], [2, 2], [10**12, 10**12], [0.3] * 500]
CHANGES = [
    lambda t: t.int(),
    lambda t: t.bool(),
    lambda t: t.double() + 1e300,
    lambda t: t.bfloat16(),
    lambda t: t.to(torch.complex64),
    lambda t: t.to(torch.float8_e5m2),
    lambda t: t * float("nan"),
    lambda t: t + float("inf"),
    lambda t: t[:0],
    lambda t: t[None],
    lambda t: torch.zeros(()),
]


def test_whatever_the_record_and_the_tensors_are(stress, tmp_path):
    rng, file = random.Random(1), tmp_path / "weights"
    torch.manual_seed(0)
    sound = DeepMask(GEOMETRY, ModelConfig(width=0.01, rank=3, score_hidden=(2, 2))).state_dict()
    config = ModelConfig(width=0.01, rank=3, score_hidden=(2, 2))
    cases, loaded = stress.scale(*CASES), 0
    for _ in range(cases):
        record = {"geometry": to_dict(GEOMETRY), "model": to_dict(config), "propose": to_dict(ProposeConfig())}
        for _ in range(rng.randint(0, 2)):
            section = rng.choice(list(record))
            record[section] = dict(record[section], **{rng.choice([*record[section], "other"]): rng.choice(VALUES)})
        if rng.random() < 0.1:
            record[rng.choice(list(record))] = rng.choice(VALUES)
        tensors = dict(sound)
        if rng.random() < 0.3:
            name = rng.choice(list(tensors))
            tensors[name] = rng.choice(CHANGES)(tensors[name])
        if rng.random() < 0.1:
            tensors[rng.choice(["other", *tensors])] = tensors.pop(rng.choice(list(tensors)))
        save_tensors(file, tensors, record)
        try:
            network = released.load(file).masker
        except WeightsError as error:
            assert str(file) in str(error) and "\n" not in str(error)
        else:
            loaded += 1
            kept = load_tensors(file)[0]
            assert all(torch.equal(value, kept[name].float()) for name, value in network.state_dict().items())
    assert 0.1 * cases < loaded < 0.9 * cases
    stress.count("cases", "weights records", cases)
