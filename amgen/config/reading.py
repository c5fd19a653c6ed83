"""From presets, YAML files and overrides to a checked configuration."""

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from amgen.config import yaml_text
from amgen.config.base import SectionType
from amgen.config.renaming import renamed_override, with_new_names
from amgen.config.run import Config, section_kinds
from amgen.config.wording import KINDS, check_sections, first_problem, section_expected
from amgen.core.errors import UserError, short, unknown


def parse(options: Mapping[str, Any], source: str, say: Callable[[str], None] | None = None) -> Config:
    """Check nested options and return the configuration; options that are not given have their defaults.

    Args:
        options: sections and options, such as {"training": {"images": 1000}}. Old names of options are replaced by the new ones.
        source: where they come from, for errors.
        say: takes a line for each option that is given by an old name.

    Raises:
        UserError: for the first unknown key, wrong type, impossible value or impossible combination.
    """
    options = with_new_names(options, source, say)
    try:
        check_sections(options, Config)
        # Through JSON: in strict mode pydantic then accepts lists for tuples, but still refuses "1" for 1.
        return Config.model_validate_json(json.dumps(options))
    except ValidationError as error:
        raise UserError(f"{source}: {first_problem(error, Config)}") from None
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{source}: a value is of a type that options cannot have: {error}") from None


def change(section: SectionType, changes: Mapping[str, Any]) -> SectionType:
    """Return a copy of a section with some options changed; all its options are checked again.

    Args:
        section: a section of a configuration, or the whole configuration.
        changes: options with their new values; a value of None leaves the option as it is.

    Raises:
        UserError: for an unknown option or an impossible value.

    Example:
        >>> from amgen import config
        >>> sampling = config.load("digits").sampling
        >>> config.change(sampling, {"solver": "heun", "steps": 10, "guidance": None}).steps
        10
    """
    given = {key: value for key, value in changes.items() if value is not None}
    try:
        return type(section).model_validate_json(json.dumps({**section.model_dump(mode="json"), **given}))
    except ValidationError as error:
        raise UserError(first_problem(error, type(section))) from None


def load(source: str, overrides: Sequence[str] = (), say: Callable[[str], None] | None = None) -> Config:
    """Read a configuration, apply overrides, check it and return it.

    Args:
        source: name of a preset, or path of a file that ends in .yaml or .yml.
        overrides: changes of the form `section.key=value`, as for `amgen train --set`.
        say: takes a line for each option that is given by an old name.

    Raises:
        UserError: if there is no such preset or file, or the options are wrong.

    Example:
        >>> from amgen import config
        >>> options = config.load("digits", ["training.images=2000", "path.kind=trigonometric"])
        >>> options.training.images, options.path.kind, options.image_shape
        (2000, 'trigonometric', (1, 8, 8))
    """
    return parse(apply_overrides(read_yaml(source, say), overrides, say), source, say)


def preset_names() -> list[str]:
    """Return the names of the presets that come with the package."""
    folder = resources.files("amgen.configs")
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def preset_summary(name: str) -> str:
    """Return a line about a preset: the comment at the start of its file."""
    first = (resources.files("amgen.configs") / f"{name}.yaml").read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("#").strip()


def read_yaml(source: str, say: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Return the nested options of a preset or of a YAML file, by their new names; they are not checked yet.

    Args:
        source: name of a preset, or path of a file that ends in .yaml or .yml.
        say: takes a line for each option that is given by an old name.

    Raises:
        UserError: if there is no such preset or file, or it does not hold sections.
    """
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
    return with_new_names(options, source, say)


def apply_overrides(options: dict[str, Any], overrides: Sequence[str], say: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Return nested options with overrides applied; they are not checked yet.

    An override that changes the `kind` or `form` of a section also drops the other options there, which belong to the old kind.

    Args:
        options: sections and options.
        overrides: changes of the form `section.key=value`; values are read as YAML.
        say: takes a line for each option that is given by an old name.

    Raises:
        UserError: if an override is not of this form, or names something inside an option.
    """
    result = copy.deepcopy(options)
    changes = [_read_override(override, say) for override in overrides]
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


def _read_override(override: str, say: Callable[[str], None] | None) -> tuple[str, list[str], Any]:
    """Split `a.b=value` into the text itself, the keys and the value, by their new names."""
    key, equals, text = override.partition("=")
    keys = key.split(".")
    if not equals or not all(keys) or len(keys) > yaml_text.DEEPEST:
        raise UserError(f"--set {short(override)}: expected section.key=value, such as training.images=2000")
    value = yaml_text.read(text, f"the value of --set {short(override)}")
    key, value = renamed_override(key, value, say)
    return override, key.split("."), value
