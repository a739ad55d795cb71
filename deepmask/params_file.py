"""Parameter files: YAML of others, read with suspicion, and the profiles in it."""

from __future__ import annotations

import reprlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

_BYTES, _VALUES = 1 << 17, 10_000  # that a parameter file has at most; ours has 10 kB and 300


class ConfigError(ValueError):
    """A parameter is unknown, missing or not what it may be; the message names it and says what to do."""


def read_params(path: str | Path, profile: str | None = None) -> dict[str, Any]:
    """The nested dict of a parameter file, with the changes of `profile` laid over its top level.

    Raises ConfigError if there is no such file, it is not YAML, is not a mapping, or has no such profile.
    """
    path = Path(path)
    params = _parsed(path)
    if not isinstance(params, dict):
        raise ConfigError(f"{path}: expected sections such as data, model and train")
    if _is_large(params):
        raise ConfigError(f"{path}: has more than {_VALUES} values, counted wherever an alias repeats them")
    profiles = params.pop("profiles", None) or {}
    if not isinstance(profiles, dict):
        raise ConfigError(f"{path}: profiles: expected a mapping, got {shown(profiles)}")
    if profile is None or profile == params.get("profile"):
        return params
    if profile not in profiles:
        known = ", ".join(shown(name) for name in [params.get("profile"), *profiles])
        raise ConfigError(f"{path}: no profile {profile!r}; it has {known}")
    changes = profiles[profile] or {}
    if not isinstance(changes, dict):
        raise ConfigError(f"{path}: profiles.{profile}: expected a mapping, got {shown(changes)}")
    return {**_merge(params, changes), "profile": profile}


class _Loader(yaml.SafeLoader):
    """YAML whose mappings name a key once, and whose merge keys do not multiply without end."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = sorted(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        twice = next((key for key, following in pairwise(keys) if key == following), None)
        if twice is not None:
            raise yaml.MarkedYAMLError(problem=f"key {shown(twice)} is there twice", problem_mark=node.start_mark)
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        if len(node.value) > _VALUES:
            raise yaml.MarkedYAMLError(problem="too many merge keys", problem_mark=node.start_mark)


def _parsed(path: Path) -> Any:
    if not path.is_file():
        raise ConfigError(f"{path}: no such parameter file; pass the path of a params.yaml")
    if path.stat().st_size > _BYTES:
        raise ConfigError(f"{path}: larger than {_BYTES >> 10} KiB; is this a params.yaml?")
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ConfigError(f"{path}: not valid YAML: {line}{error.problem or error.context}") from None
    except RecursionError:
        raise ConfigError(f"{path}: not valid YAML: nested too deeply") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: not valid YAML: {str(error).splitlines()[0]}") from None
    except (
        ValueError,
        ArithmeticError,
        LookupError,
        AttributeError,
    ) as error:  # PyYAML's, of 2001-99-99, !!bool x, ...
        raise ConfigError(f"{path}: not valid YAML: it has a number, date or tag that is none ({error})") from None


def _is_large(params: dict) -> bool:
    """Whether there are more values than a parameter file has; without an end where an alias is within itself."""
    waiting, count = [params], 0
    while waiting and count <= _VALUES:
        value = waiting.pop()
        count += 1
        if isinstance(value, (dict, list)):
            waiting += value.values() if isinstance(value, dict) else value
    return count > _VALUES


class _Repr(reprlib.Repr):
    """Short texts of values, however long they are."""

    maxlevel, maxstring, maxlong, maxother = 2, 60, 40, 60

    def repr_int(self, value: int, level: int) -> str:
        """Python itself writes no number of thousands of digits."""
        return f"a number of {value.bit_length()} bits" if value.bit_length() > 128 else repr(value)


shown = _Repr().repr  # of any value, in an error message


def _merge(base: dict, changes: dict) -> dict:
    merged = dict(base)
    for key, value in changes.items():
        merged[key] = _merge(base[key], value) if isinstance(value, dict) and isinstance(base.get(key), dict) else value
    return merged
