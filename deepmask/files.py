"""Small results on disk: always whole, and the same bytes for the same numbers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd


def write_text(path: str | Path, text: str) -> None:
    """Write a text file beside its place and move it there, so that no reader finds half of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text, encoding="utf-8", newline="\n")
    os.replace(temporary, path)


def write_array(path: str | Path, array: np.ndarray) -> None:
    """Write one array, compressed; `read_array` reads it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    with open(temporary, "wb") as file:
        np.savez_compressed(file, array=array)
    os.replace(temporary, path)


def read_array(path: str | Path) -> np.ndarray:
    """An array that `write_array` wrote."""
    with np.load(path, allow_pickle=False) as content:
        return content["array"]


def write_csv(path: str | Path, table: pd.DataFrame, digits: int = 4) -> None:
    """Write a table without its index, numbers with a fixed number of digits."""
    write_text(path, table.to_csv(index=False, float_format=f"%.{digits}f", lineterminator="\n"))


def write_json(path: str | Path, content: Any) -> None:
    """Write JSON with sorted keys."""
    write_text(path, json.dumps(content, indent=1, sort_keys=True) + "\n")
