"""The forest that ranks MCG's candidates: fitted by scikit-learn, kept and evaluated as plain arrays (section 5)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numba
import numpy as np
from sklearn.ensemble import RandomForestRegressor

from deepmask import files
from deepmask.baseline_config import BaselineError

_ARRAYS = {
    "features": np.int32,
    "thresholds": np.float64,
    "left": np.int32,
    "right": np.int32,
    "values": np.float64,
    "roots": np.int32,
}


@dataclass(frozen=True, eq=False)
class Ranking:
    """T regression trees in N nodes: (P, F) features of candidates -> expected IoU with the best object."""

    features: np.ndarray  # (N,) int32 which feature a node asks for; -1 for a leaf
    thresholds: np.ndarray  # (N,) float64 to the left if the feature is not above it
    left: np.ndarray  # (N,) int32 node
    right: np.ndarray  # (N,) int32 node
    values: np.ndarray  # (N,) float64 of leaves
    roots: np.ndarray  # (T,) int32 node of each tree

    @classmethod
    def fit(cls, features: np.ndarray, overlaps: np.ndarray, trees: int, leaf: int, seed: int) -> Ranking:
        """Fit to candidates (P, F) and their IoU (P,); BaselineError if there are none.

        A tree sees half of the candidates, a split a third of the features, a leaf at least `leaf` candidates.
        """
        if not len(overlaps):
            raise BaselineError("mcg: no training image has an object, so nothing can be learned to rank by")
        forest = RandomForestRegressor(
            trees, min_samples_leaf=leaf, max_features=1 / 3, max_samples=0.5, random_state=seed, n_jobs=1
        )
        parts = [tree.tree_ for tree in forest.fit(features, overlaps).estimators_]
        sizes = [part.node_count for part in parts]
        offsets = np.cumsum([0, *sizes[:-1]])
        joined = {
            "features": np.concatenate([np.where(p.children_left < 0, -1, p.feature) for p in parts]),
            "left": np.concatenate([p.children_left + o for p, o in zip(parts, offsets, strict=True)]),
            "right": np.concatenate([p.children_right + o for p, o in zip(parts, offsets, strict=True)]),
            "roots": offsets,
        }
        thresholds = np.concatenate([p.threshold for p in parts])
        values = np.concatenate([p.value[:, 0, 0] for p in parts])
        parts = joined | {"thresholds": thresholds, "values": values}
        return cls(**{name: parts[name].astype(kind) for name, kind in _ARRAYS.items()})

    def predict(self, candidates: np.ndarray) -> np.ndarray:
        """(P,) float64 expected IoU of candidates (P, F); BaselineError if they lack a feature that a node asks for."""
        asked = int(self.features.max(initial=-1))
        if asked >= candidates.shape[1]:
            raise BaselineError(
                f"mcg: the ranking asks for feature {asked} of candidates that have {candidates.shape[1]}; it was made "
                "by another version, so run the stage `ranking` of a study again"
            )
        return _predict(np.ascontiguousarray(candidates, np.float32), *(getattr(self, name) for name in _ARRAYS))

    def save(self, path: str | Path) -> None:
        """Write the arrays as .npz, whole or not at all, the same bytes for the same forest."""
        with files.replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **{name: getattr(self, name) for name in _ARRAYS})

    @classmethod
    def load(cls, path: str | Path) -> Ranking:
        """A ranking that `save` wrote; nothing in the file is executed.  Raises BaselineError."""
        if not Path(path).exists():
            raise BaselineError(f"{path}: no such ranking; run the stage `ranking` of a study first")
        try:
            with np.load(path, allow_pickle=False) as content:
                ranking = cls(**{name: np.asarray(content[name]) for name in _ARRAYS})
        except Exception:  # a damaged file may raise anything from within a decoder
            raise BaselineError(f"{path}: not a ranking of MCG; run the stage `ranking` of a study again") from None
        if not ranking._is_sound():
            raise BaselineError(f"{path}: a damaged ranking of MCG; run the stage `ranking` of a study again")
        return ranking

    def _is_sound(self) -> bool:
        """Whether every walk from a root stays in the arrays and ends: children come after their parents."""
        if any(getattr(self, name).dtype != kind for name, kind in _ARRAYS.items()):
            return False
        nodes = self.values.size
        if any(getattr(self, name).shape != (nodes,) for name in _ARRAYS if name != "roots") or self.roots.ndim != 1:
            return False
        inner = np.flatnonzero(self.features >= 0)
        after = (self.left[inner] > inner).all() and (self.right[inner] > inner).all()
        inside = max(self.left[inner].max(initial=0), self.right[inner].max(initial=0)) < nodes
        finite = np.isfinite(self.values).all() and np.isfinite(self.thresholds).all()
        roots = len(self.roots) > 0 and 0 <= self.roots.min() and self.roots.max() < nodes
        return bool(nodes and after and inside and finite and roots)


@numba.njit(cache=True)
def _predict(candidates, features, thresholds, left, right, values, roots):
    scores = np.zeros(len(candidates))
    for row in range(len(candidates)):
        for root in roots:
            node = root
            while features[node] >= 0:
                node = left[node] if candidates[row, features[node]] <= thresholds[node] else right[node]
            scores[row] += values[node]
    return scores / len(roots)
