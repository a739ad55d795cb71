"""Small results on disk: always whole, and the same bytes for the same numbers."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deepmask.data.coco_records import DataError


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """The place of a file that is being written, and that takes the place of `path` when the block is left.

    So no reader finds half of a file, and no half outlives an error.  What a killed process left is overwritten by the
    next that writes the same file, as two at once must not (`turns`).  The folder is made.  An OSError, such as a full
    disk, names `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.filename is None or Path(error.filename) == temporary:
            error.filename = str(path)
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file, whole or not at all; names of files that are no UTF-8 keep their bytes."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape", newline="\n")


def write_array(path: str | Path, array: np.ndarray) -> None:
    """Write one array, compressed; `read_array` reads it."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, array=array)


def read_array(path: str | Path) -> np.ndarray:
    """An array that `write_array` wrote; nothing in the file is executed.  Raises DataError if it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as content:
            return content["array"]
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged file may raise anything from within a decoder
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: damaged ({what}); remove it and make it again") from None


def write_csv(path: str | Path, table: pd.DataFrame, digits: int = 4) -> None:
    """Write a table without its index, numbers with a fixed number of digits."""
    write_text(path, table.to_csv(index=False, float_format=f"%.{digits}f", lineterminator="\n"))


def write_json(path: str | Path, content: Any) -> None:
    """Write JSON with sorted keys."""
    write_text(path, json.dumps(content, indent=1, sort_keys=True) + "\n")
