"""What a parameter may be, written as its type, `batch: Count`; `deepmask.config` refuses everything else in a file.

A bound says by `allows` whether it holds for a value of the right type, and as text what it asks for.  Code that
builds a section itself is not checked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal, TypeVar

T = TypeVar("T")

MOST = 2**31 - 1  # of what is counted: OpenCV, PyTorch and NumPy all hold it


@dataclass(frozen=True)
class Within:
    """A number from `low` to `high`; with `inside` neither of the two.  No infinity or NaN."""

    low: float = -math.inf
    high: float = math.inf
    inside: bool = False

    def allows(self, value: float) -> bool:
        """Whether the number lies there."""
        within = self.low < value < self.high if self.inside else self.low <= value <= self.high
        return within and -math.inf < value < math.inf

    def __str__(self) -> str:
        if self.low == -math.inf:
            return "a finite number"
        if self.high in (math.inf, MOST):
            return f"above {self.low}" if self.inside else f"{self.low} or more"
        return f"between {self.low} and {self.high}" if self.inside else f"from {self.low} to {self.high}"


@dataclass(frozen=True)
class MultipleOf:
    """A whole number of such steps."""

    step: int

    def allows(self, value: int) -> bool:
        """Whether nothing is left over."""
        return value % self.step == 0

    def __str__(self) -> str:
        return f"a multiple of {self.step}"


@dataclass(frozen=True)
class MadeOf:
    """A word of such letters."""

    letters: str

    def allows(self, value: str) -> bool:
        """Whether it has a letter, and no other."""
        return bool(value) and not set(value) - set(self.letters)

    def __str__(self) -> str:
        return f"a choice of the letters {self.letters}"


class AtLeastOne:
    """A list that is not empty."""

    def allows(self, value: tuple[Any, ...]) -> bool:
        """Whether it has an entry."""
        return bool(value)

    def __str__(self) -> str:
        return "a list of at least one"


class Ascending:
    """A list of numbers, none of which is below the one before."""

    def allows(self, value: tuple[float, ...]) -> bool:
        """Whether it is in order."""
        return all(a <= b for a, b in pairwise(value))

    def __str__(self) -> str:
        return "in ascending order"


Count = Annotated[int, Within(1, MOST)]
Whole = Annotated[int, Within(0, MOST)]
Images = Annotated[int, Within(1, 10**6)]  # that are drawn for one set
Side = Annotated[int, Within(16, MOST)]  # px of a drawn scene
Seed = Annotated[int, Within(0, 2**63 - 1)]  # NumPy's generators take none below, PyTorch's none far above
Real = Annotated[float, Within()]
Positive = Annotated[float, Within(0, inside=True)]
NotNegative = Annotated[float, Within(0)]
Share = Annotated[float, Within(0, 1)]
Inner = Annotated[float, Within(0, 1, inside=True)]  # a probability that has a logit
Momentum = Annotated[float, Within(0, 0.9999)]  # at 1 nothing would be forgotten
Octave = Annotated[float, Within(-8, 8)]  # log2 of a scale, which multiplies pixels by its square
Some = Annotated[tuple[T, ...], AtLeastOne()]
Rising = Annotated[T, Ascending()]
Optimiser = Literal["sgd", "adamw", "muon"]
Precision = Literal["auto", "bf16", "fp32"]
