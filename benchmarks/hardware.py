"""The ceiling: the best rate of large matrix products, of which a convolution is one, and of copies, as measured here.

Every share in the benchmark is relative to these numbers, not to those of a data sheet.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.timing import seconds
from deepmask import device as devices

SIZES = {"cuda": (2048, 4096, 8192), "cpu": (512, 1024, 2048, 4096)}  # side of the square matrices
COPIED = {"cuda": 2**30, "cpu": 2**28}  # bytes, far above any cache
CONVOLVED = {"cuda": 256, "cpu": 8}  # images of the convolution


def ceiling(device: torch.device, quick: bool = False) -> dict[str, Any]:
    """Rates of this device: TFLOP/s by format and size, the best by format (the ceiling), and GB/s of a copy."""
    sizes = (512, 1024) if quick else SIZES[device.type]
    formats = [name for name, dtype in devices.PRECISIONS.items() if _worth(dtype, device)]
    products = {name: {str(n): product_rate(n, devices.PRECISIONS[name], device) for n in sizes} for name in formats}
    images = 4 if quick else CONVOLVED[device.type]
    convolutions = {name: convolution_rate(images, devices.PRECISIONS[name], device) for name in formats}
    return {
        "threads": torch.get_num_threads() if device.type == "cpu" else None,
        "matrix_tflops": products,
        "convolution_tflops": convolutions,
        "best_tflops": {name: max(convolutions[name], *rates.values()) for name, rates in products.items()},
        "copy_gbs": copy_rate(2**24 if quick else COPIED[device.type], device),
    }


def better(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """The better of two measurements of a ceiling, rate by rate, and by what share of it the worse one was lower.

    Another program that works at the same time lowers a rate, and nothing raises it.
    """
    best = _best(first, second)
    rates = [(rate, second["best_tflops"][name]) for name, rate in first["best_tflops"].items()]
    return best | {"varied": max(1 - min(pair) / max(pair) for pair in rates)}


def _best(first: Any, second: Any) -> Any:
    if isinstance(first, dict):
        return {key: _best(value, second[key]) for key, value in first.items()}
    return first if first is None else max(first, second)


def product_rate(n: int, dtype: torch.dtype, device: torch.device) -> float:
    """TFLOP/s of the product of two n x n matrices of random numbers."""
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    return 2 * n**3 / seconds(lambda: torch.mm(a, b, out=out), device, warm_up=3) / 1e12


def convolution_rate(images: int, dtype: torch.dtype, device: torch.device) -> float:
    """TFLOP/s of a 3x3 convolution, 256 to 256 channels at 56 x 56, the shape of conv4 of VGG-A."""
    x = torch.randn(images, 256, 56, 56, device=device).to(dtype).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(256, 256, 3, 3, device=device).to(dtype).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        took = seconds(lambda: F.conv2d(x, weight, padding=1), device, warm_up=3)
    return 2 * images * 56**2 * 256**2 * 9 / took / 1e12


def copy_rate(size: int, device: torch.device) -> float:
    """GB/s of a copy within memory, bytes read plus bytes written; `size` bytes are copied."""
    source = torch.zeros(size, dtype=torch.uint8, device=device).fill_(1)
    target = torch.empty_like(source)
    return 2 * size / seconds(lambda: target.copy_(source), device, warm_up=2) / 1e9


def _worth(dtype: torch.dtype, device: torch.device) -> bool:
    """Emulated bfloat16 takes minutes and is never used."""
    return dtype != torch.bfloat16 or devices.native_bf16(device)
