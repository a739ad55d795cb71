"""Hostile and broken files: each ends in a result or in the project's own error, see `fuzz.py`."""

import re
import subprocess
import sys

import fuzz
import fuzz_binary
import fuzz_parameters
import fuzz_text
import pytest

CASES = 500, 10_000  # of a target that is not slow, in short and in full
SECONDS, MEGABYTES = 20, 4096  # that one file may take
TARGETS = {**fuzz_text.TARGETS, **fuzz_binary.TARGETS, **fuzz_parameters.TARGETS}


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_no_file_ends_in_anything_but_a_result_or_our_error(name, stress, tmp_path):
    pytest.importorskip("atheris", reason="Atheris has no package for this Python")
    cases = stress.scale(*CASES) // TARGETS[name].slow
    options = [f"-runs={cases}", "-seed=1", f"-timeout={SECONDS}", f"-rss_limit_mb={MEGABYTES}", "-max_len=65536"]
    options.append(f"-artifact_prefix={tmp_path}/")
    done = subprocess.run(
        [sys.executable, fuzz.__file__, name, *options], cwd=tmp_path, capture_output=True, text=True, errors="replace"
    )
    kept = [path.read_bytes()[:400] for path in tmp_path.iterdir() if path.is_file()]
    assert done.returncode == 0, f"{done.stdout[-1500:]}{done.stderr[-2500:]}\nthe file: {kept}"
    tried = int(re.search(r"Done (\d+) runs", done.stderr)[1])
    assert tried >= cases
    stress.count("cases", name, tried)
