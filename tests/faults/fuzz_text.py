"""Readers of text files, for `fuzz.py`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from fuzz import Target

from deepmask import results_file
from deepmask.proposals import ProposalError


def _proposals(folder: Path) -> Callable[[Path], None]:
    def read(file: Path) -> None:
        try:
            results_file.read(file)
        except ProposalError:
            pass

    return read


def _proposal_seeds() -> list[bytes]:
    entry = {"image_id": 1, "score": 0.5, "bbox": [1, 2, 3, 4]}
    return [json.dumps([entry, entry | {"image_id": 2}]).encode(), b"[]"]


TARGETS = {
    "proposals": Target(_proposal_seeds, _proposals, ".json"),
}
