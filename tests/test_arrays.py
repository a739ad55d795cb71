"""Arrays on disk that are damaged."""

import numpy as np
import pytest

from deepmask import files
from deepmask.data.coco import DataError


def test_a_damaged_array_is_named_and_nothing_in_it_is_executed(tmp_path):
    path = tmp_path / "a.npz"
    files.write_array(path, np.arange(6.0))
    whole = path.read_bytes()
    np.savez(tmp_path / "objects.npz", array=np.array([{}, print], object))
    contents = [b"", b"no array", whole[: len(whole) // 2], (tmp_path / "objects.npz").read_bytes()]
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(DataError, match="a.npz: damaged .*; remove it and make it again") as error:
            files.read_array(path)
        assert "\n" not in str(error.value)
