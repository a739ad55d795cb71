"""Readers of binary files, for `fuzz.py`."""

from __future__ import annotations

from fuzz import Target

TARGETS: dict[str, Target] = {}
