"""How far a metric of section 4 would move on other images: bootstrap over images, paired for two methods.

AR and AUC are ratios of sums over images (objects found over objects), so a resample is a weight per image and all
resamples are two matrix products.  The spread does not contain what another training run would change.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from deepmask.evaluation import AUC_WEIGHTS, Recall

LEVEL = 0.95  # of the interval


class Interval(NamedTuple):
    """A value with its uncertainty; everything is nan if there are no objects."""

    value: float  # on the images as they are
    standard_error: float
    low: float
    high: float  # low to high: 95 % percentile interval


def interval(recall: Recall, metric: str, resamples: int = 1000, seed: int = 0) -> Interval:
    """Uncertainty of `metric` ("AUC" or "AR@n") of one method; of a part of the objects: pass `recall.only(select)`."""
    found, objects = _per_image(recall, metric)
    weights = resampled(len(objects), resamples, seed)
    return _interval(_ratio(found.sum(), objects.sum()), _ratio(weights @ found, weights @ objects))


def paired_bootstrap(
    a: Recall, b: Recall, metric: str, resamples: int = 1000, seed: int = 0, metric_b: str | None = None
) -> Interval:
    """Uncertainty of `metric` of `a` minus that of `b`, both on the same resampled images.

    `metric_b`: the metric of `b` if it is another one, to compare a hundred proposals with a thousand.
    `a` and `b` must be evaluations of the same objects (ValueError), for example both `only` the same selection.
    """
    (found_a, objects), (found_b, objects_b) = _per_image(a, metric), _per_image(b, metric_b or metric)
    if not np.array_equal(a.image_ids, b.image_ids) or not np.array_equal(objects, objects_b):
        raise ValueError("a paired bootstrap needs two evaluations of the same images and objects")
    weights = resampled(len(objects), resamples, seed)
    gain = found_a - found_b
    return _interval(_ratio(gain.sum(), objects.sum()), _ratio(weights @ gain, weights @ objects))


def _per_image(recall: Recall, metric: str) -> tuple[np.ndarray, np.ndarray]:
    name, _, count = metric.partition("@")
    if metric == "AUC":
        return recall.found(AUC_WEIGHTS)
    if name == "AR" and count.isdecimal():
        return recall.found({int(count): 1.0})
    raise ValueError(f"metric {metric!r} is neither 'AUC' nor 'AR@' and a number")


def resampled(images: int, resamples: int, seed: int) -> np.ndarray:
    """(resamples, images) float64: how often each image is drawn when as many are drawn with replacement.

    The same draws for the same arguments, so that what is compared on them is paired.
    """
    rng = np.random.default_rng(seed)
    draws = rng.integers(0, images, (resamples, images)) + images * np.arange(resamples)[:, None]
    return np.bincount(draws.ravel(), minlength=resamples * images).reshape(resamples, images).astype(np.float64)


def _ratio(found: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """found / objects, nan where a resample has no objects."""
    return np.divide(found, objects, out=np.full(np.shape(found), np.nan), where=np.asarray(objects) > 0)


def _interval(value: np.ndarray, resampled: np.ndarray) -> Interval:
    resampled = resampled[np.isfinite(resampled)]
    if resampled.size < 2:
        return Interval(float(value), np.nan, np.nan, np.nan)
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(value), float(resampled.std(ddof=1)), float(low), float(high))
