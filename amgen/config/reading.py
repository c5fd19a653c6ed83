"""From presets, YAML files and overrides to a checked configuration."""

import copy
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from amgen.config import yaml_text
from amgen.config.base import SectionType
from amgen.config.run import Config, section_kinds
from amgen.config.wording import KINDS, check_sections, first_problem, section_expected
from amgen.core.errors import UserError, short, unknown


def parse(options: Mapping[str, Any], source: str) -> Config:
    """Check nested `options` and return the Config; `source` names them in errors.

    Raises:
        UserError: for the first unknown key, wrong type or impossible value.
    """
    try:
        check_sections(options, Config)
        # By way of JSON, where strict mode lets lists become tuples and still refuses "1" for 1.
        return Config.model_validate_json(json.dumps(options))
    except ValidationError as error:
        raise UserError(f"{source}: {first_problem(error, Config)}") from None
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{source}: a value is of a type that options do not have: {error}") from None


def change(section: SectionType, changes: Mapping[str, Any]) -> SectionType:
    """Return a section with some options changed, all checked again; a change to None keeps what is there.

    Raises:
        UserError: for an impossible value.
    """
    given = {key: value for key, value in changes.items() if value is not None}
    try:
        return type(section).model_validate_json(json.dumps({**section.model_dump(mode="json"), **given}))
    except ValidationError as error:
        raise UserError(first_problem(error, type(section))) from None


def load(source: str, overrides: Sequence[str] = ()) -> Config:
    """Read a preset by name or a YAML file by path, apply `a.b=c` overrides, and return the resolved Config."""
    return parse(apply_overrides(read_yaml(source), overrides), source)


def preset_names() -> list[str]:
    """Names of the presets that come with the package."""
    folder = resources.files("amgen.configs")
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def preset_summary(name: str) -> str:
    """Return what a preset is: the comment that its file begins with."""
    first = (resources.files("amgen.configs") / f"{name}.yaml").read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("#").strip()


def read_yaml(source: str) -> dict[str, Any]:
    """Return the nested options of a preset or of a YAML file."""
    if source in preset_names():
        options = yaml_text.read((resources.files("amgen.configs") / f"{source}.yaml").read_text(encoding="utf-8"), source)
    elif source.endswith((".yaml", ".yml")):
        options = yaml_text.read_file(Path(source))
    else:
        raise UserError(f"{unknown('preset', source, preset_names())}, or give the path of a .yaml file")
    if options is None:
        return {}
    if not isinstance(options, dict):
        raise UserError(f"{source} must hold sections such as `data:`, not a {type(options).__name__}")
    return options


def apply_overrides(options: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return `options` with each `section.key=value` set; values are read as YAML.

    Another `kind` or `form` begins its section anew: the options of the old kind do not belong to the new one.
    """
    result = copy.deepcopy(options)
    changes = [_read_override(override) for override in overrides]
    for text, keys, value in sorted(changes, key=lambda change: change[1][-1] not in KINDS):
        node = result
        *parents, leaf = keys
        for depth, parent in enumerate(parents, 1):
            if node.get(parent) is None:
                node[parent] = {}
            inner = node[parent]
            if not isinstance(inner, dict):
                if kinds := section_kinds(keys[:depth]):
                    raise section_expected(".".join(keys[:depth]), inner, kinds)
                raise UserError(f"--set {short(text)}: {short(parent)} is an option, not a section")
            node = inner
        if leaf in KINDS and node.get(leaf, value) != value:
            node.clear()
        node[leaf] = value
    return result


def _read_override(override: str) -> tuple[str, list[str], Any]:
    """Take `a.b=value` apart: the text itself, the keys and the value."""
    key, equals, text = override.partition("=")
    keys = key.split(".")
    if not equals or not all(keys) or len(keys) > yaml_text.DEEPEST:
        raise UserError(f"--set {short(override)}: expected section.key=value, such as training.images=2000")
    return override, keys, yaml_text.read(text, f"the value of --set {short(override)}")
