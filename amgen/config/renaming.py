"""Options that were renamed: their old names are still read, in YAML files, in `--set` and in the records of old runs.

To rename an option, change it in its section and add a line to `RENAMED`; to rename a value, add it to `RENAMED_VALUES`. A configuration
that was read holds the new names only.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

from amgen.core.errors import UserError

RENAMED: dict[str, str] = {
    "data.counts": "data.mass_from_counts",
    "data.mass_column": "data.mass_key",
    "data.time_column": "data.time_key",
    "data.whiten": "data.standardize",
}
"""Old dotted key of an option or a section to its new one."""

RENAMED_VALUES: dict[str, dict[str, str]] = {
    "data.standardize": {"common": "global", "full": "whiten"},
}
"""New dotted key of an option to its renamed values, old to new."""


def new_key(key: str) -> str:
    """Return the present name of a dotted key; a key that was not renamed is returned as it is.

    Example:
        >>> new_key("data.counts"), new_key("data.path")
        ('data.mass_from_counts', 'data.path')
    """
    for old, new in RENAMED.items():
        if key == old or key.startswith(f"{old}."):
            key = new + key.removeprefix(old)
    return key


def new_value(key: str, value: Any) -> Any:
    """Return the present name of a value of the option `key`; a value that was not renamed is returned as it is."""
    return RENAMED_VALUES.get(key, {}).get(value, value) if isinstance(value, str) else value


def with_new_names(options: Mapping[str, Any], source: str, say: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Return nested options in which old names are replaced by new ones.

    Args:
        options: sections and options as they were read, not checked yet.
        source: where they come from, for messages.
        say: takes a line for each replaced name.

    Raises:
        UserError: if an option is given by its old and its new name.
    """
    result = copy.deepcopy(dict(options))
    keys: dict[str, str] = {}
    for old, new in RENAMED.items():
        section, name = _section(result, old)
        if section is None or name not in section:
            continue
        target, new_name = _section(result, new, make=True)
        if target is None:
            continue  # another value is where its section should be: the checks report it
        if new_name in target:
            raise UserError(f"{source}: {old} is the old name of {new}, and both are given: remove {old}")
        target[new_name] = section.pop(name)
        keys[new] = old
    for key in dict.fromkeys([*keys, *RENAMED_VALUES]):
        section, name = _section(result, key)
        value = None if section is None else section.get(name)
        if section is not None and name in section:
            section[name] = new_value(key, value)
            _report(source, keys.get(key, key), key, value, say)
    return result


def renamed_override(key: str, value: Any, say: Callable[[str], None] | None = None) -> tuple[str, Any]:
    """Return the key and the value of an override by their new names; `say` takes a line if one of them is replaced."""
    found = new_key(key)
    _report("--set", key, found, value, say)
    return found, new_value(found, value)


def _report(source: str, old: str, new: str, value: Any, say: Callable[[str], None] | None) -> None:
    """Say the new name of an option or of its value, if it has one."""
    current = new_value(new, value)
    if say is not None and (old != new or current is not value):
        before, after = (old, new) if current is value else (f"{old}={value}", f"{new}={current}")
        say(f"{source}: {before} is now called {after}: use the new name (the old one is still read)")


def _section(options: dict[str, Any], key: str, make: bool = False) -> tuple[dict[str, Any] | None, str]:
    """Return the section that a dotted key lies in, None if there is none, and the last part of the key; with `make`, make it."""
    *parents, name = key.split(".")
    node: Any = options
    for parent in parents:
        node = node.setdefault(parent, {}) if make else node.get(parent)
        if not isinstance(node, dict):
            return None, name
    return node, name
