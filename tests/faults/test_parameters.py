"""Hostile parameters: whatever stands in whatever place, it ends in a config or in an error that names the place."""

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepmask import config
from deepmask.config import Config, ConfigError

SOUND = config.to_dict(config.load(Path(__file__).parents[2] / "params.yaml", "smoke"))
NUMBERS = [0, -1, 2**31, 2**63, 2**64, 10**400, 1e308, -1e308, 5e-324, -0.0, math.nan, math.inf, -math.inf]
OTHERS = ["", "foo", "auto", "1e999", "nan", "../x", "a\0b", "\ud800", "x" * 100_000, b"\xff", None, True]
HOSTILE = st.one_of(
    st.sampled_from(NUMBERS + OTHERS),
    st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
    st.recursive(
        st.none() | st.integers() | st.floats(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3) | st.integers(), inner),
        max_leaves=8,
    ),
)


def places(values, above=()):
    """The path of every value, sections too."""
    for key, value in values.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from places(value, (*above, key))


def changed(values, place, value):
    """The parameters with one value replaced."""
    key, *rest = place
    return values | {key: changed(values[key], rest, value) if rest else value}


def test_whatever_stands_in_whatever_place_is_read_or_refused_by_name(stress):
    tried = 0

    @settings(max_examples=stress.scale(300, 5_000), deadline=None, database=None, derandomize=True)
    @given(place=st.sampled_from(list(places(SOUND))), value=HOSTILE)
    def holds(place, value):
        nonlocal tried
        tried += 1
        try:
            made = config.from_dict(Config, changed(SOUND, place, value), "p.yaml")
        except ConfigError as error:
            text = str(error)
            assert text.startswith("p.yaml: ") and place[-1] in text and len(text) < 1000
        else:
            assert config.from_dict(Config, config.to_dict(made)) == made

    holds()
    stress.count("cases", "parameters replaced", tried)


def numbers(values, where=()):
    """The path of every number, also of those in lists."""
    for key, value in values.items() if isinstance(values, dict) else enumerate(values):
        if type(value) in (int, float):
            yield (*where, key)
        elif isinstance(value, (dict, list, tuple)):
            yield from numbers(value, (*where, key))


def with_number(values, place, number):
    key, *rest = place
    value = with_number(values[key], rest, number) if rest else number
    return values | {key: value} if isinstance(values, dict) else [*values[:key], value, *values[key + 1 :]]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 10**400], ids=["nan", "inf", "-inf", "whole"])
def test_no_number_may_be_without_end(number, stress):
    found = list(numbers(SOUND))
    assert len(found) > 150
    for place in found:
        name = ".".join(key for key in place if isinstance(key, str))
        with pytest.raises(ConfigError, match=f"parameters: {name}: expected"):
            config.from_dict(Config, with_number(SOUND, place, number))
    stress.count("cases", "numbers without end", len(found))
