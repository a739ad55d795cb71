"""Allowed cores, number format and the environment record, on made-up /proc and /sys folders."""

import getpass
import json
import os
import platform
from pathlib import Path

import pytest
import torch

from deepmask import device as devices
from deepmask.config import ConfigError
from deepmask.environment import describe, environment

CPU = torch.device("cpu")


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture
def eight_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


V1 = "sys/fs/cgroup/cpu,cpuacct"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        ({"proc/self/cgroup": "0::/\n"}, 8),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 8),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "1000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "9900000 100000\n"}, 8),
        # the tightest group on the way up counts
        (
            {
                "proc/self/cgroup": "0::/job/step\n",
                "sys/fs/cgroup/job/cpu.max": "300000 100000\n",
                "sys/fs/cgroup/job/step/cpu.max": "500000 100000\n",
            },
            3,
        ),
        # in a container: the path of the host, but the container's own group at the mount
        ({"proc/self/cgroup": "0::/host/job\n", "sys/fs/cgroup/cpu.max": "400000 100000\n"}, 4),
        (
            {
                "proc/self/cgroup": "5:memory:/job\n3:cpu,cpuacct:/job\n",
                f"{V1}/job/cpu.cfs_quota_us": "300000\n",
                f"{V1}/job/cpu.cfs_period_us": "100000\n",
            },
            3,
        ),
        (
            {
                "proc/self/cgroup": "3:cpu,cpuacct:/\n2:cpuset:/\n",
                f"{V1}/cpu.cfs_quota_us": "-1\n",
                f"{V1}/cpu.cfs_period_us": "100000\n",
            },
            8,
        ),
    ],
)
def test_cores_respect_the_quota(tmp_path, eight_cores, files, expected):
    assert devices.cores(write(tmp_path, files)) == expected


def test_cores_respect_the_affinity_mask(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 6}, raising=False)
    assert devices.cores(tmp_path) == 3


def test_cores_of_this_machine():
    assert 1 <= devices.cores() <= os.cpu_count()


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("model name\t: A\nflags\t\t: fpu avx512f avx512_bf16\n", True),
        ("model name\t: A\nflags\t\t: fpu amx_bf16 amx_tile\n", True),
        ("processor\t: 0\nFeatures\t: fp asimd bf16 i8mm\n", True),
        ("model name\t: avx512_bf16\nflags\t\t: fpu avx2 avx512f\n", False),
        ("", False),
    ],
)
def test_native_bf16_of_processors(tmp_path, cpuinfo, expected):
    assert devices.native_bf16(CPU, write(tmp_path, {"proc/cpuinfo": cpuinfo})) is expected


def test_without_a_proc_folder_nothing_is_assumed(tmp_path):
    assert devices.native_bf16(CPU, tmp_path) is False
    assert devices.processor(tmp_path) == platform.machine()


@pytest.mark.parametrize(("native", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_precision_is_what_the_device_does_natively(monkeypatch, native, expected):
    monkeypatch.setattr(devices, "native_bf16", lambda device: native)
    assert devices.precision("auto", CPU) == expected
    assert devices.precision("fp32", CPU) == torch.float32
    assert devices.precision("bf16", CPU) == torch.bfloat16


def test_an_unknown_precision_is_named():
    with pytest.raises(ConfigError, match="'fp8'"):
        devices.precision("fp8", CPU)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_computes_in_the_given_format(dtype):
    layer, x = torch.nn.Linear(4, 4), torch.zeros(2, 4)
    with devices.autocast(dtype, CPU):
        assert layer(x).dtype == dtype
    assert layer(x).dtype == torch.float32


def test_the_record_is_reproducible_and_private():
    record = environment("fp32")
    assert record == environment("fp32") and record["precision"] == "fp32"
    assert record["packages"]["torch"] == torch.__version__ and record["cores"] == devices.cores()
    text = json.dumps(record, sort_keys=True)
    for secret in (platform.node(), str(Path.home()), str(Path.cwd())):
        assert secret not in text
    assert getpass.getuser() not in record.values()


def test_the_description_is_one_line_with_the_precision():
    line = describe("fp32")
    assert "\n" not in line and torch.__version__ in line and line.endswith("fp32")
