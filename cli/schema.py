"""amgen presets and amgen config: the presets, and the options of a run."""

from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from .options import Debug

if TYPE_CHECKING:
    from pydantic import BaseModel


def presets(debug: Debug = False) -> None:
    """List the presets for amgen train, each with one line about it."""
    from amgen.config import preset_names, preset_summary

    names = preset_names()
    width = max(map(len, names))
    for name in names:
        print(f"{name:{width}}  {preset_summary(name)}")


def config(
    key: Annotated[
        str | None,
        typer.Argument(
            help="A section or a key, such as training or data.resize. Default: all.", metavar="[SECTION|KEY]", show_default=False
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """List the options for amgen train --set and for YAML files: values, default and meaning of each."""
    import shutil
    import sys
    import textwrap

    chosen = _chosen(key)
    first, second, third = (max(len(row[column]) for row in chosen if row.key) for column in (0, 1, 2))
    second, third = min(second, 40), min(third, 24)
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    indent = " " * 4
    for row in chosen:
        if not row.key:
            print(f"\n{row.help}" if row is not chosen[0] else row.help)
            continue
        line = f"  {row.key:{first}}  {row.accepts:{second}}  {row.default:{third}}  {row.help}".rstrip()
        # One line for each option if another program reads them; in a terminal, lines are broken between words.
        print(textwrap.fill(line, columns, subsequent_indent=indent) if 0 < columns < len(line) else line)


class Row(NamedTuple):
    """An option, or without a key the heading of the options below it."""

    key: str
    accepts: str
    default: str
    help: str


def _chosen(key: str | None) -> list[Row]:
    """Return the rows of a section or a key, or all rows for None.

    Raises:
        UserError: for an unknown key, with the nearest one.
    """
    from amgen.config.renaming import new_key
    from amgen.core.errors import UserError, nearest, short

    rows = list(_rows())
    if key is None:
        return rows
    key = new_key(key)
    wanted: list[Row] = []
    heading: Row | None = None
    for row in rows:
        if not row.key:
            heading = row
        elif row.key == key or row.key.startswith(f"{key}."):
            wanted += [row] if heading is None else [heading, row]
            heading = None
    if not wanted:
        keys = dict.fromkeys(part for row in rows if row.key for part in (row.key, row.key.rpartition(".")[0]) if part)
        raise UserError(f"unknown option {short(key)}{nearest(key, keys)}: amgen config lists all")
    return wanted


def _rows() -> list[Row]:
    """Return every option of a run. A section with several kinds has a heading for each kind."""
    from amgen.config import Config
    from amgen.config.wording import KINDS, sections

    rows = [Row("", "", "", "Of the whole run:")]
    for name, field in Config.model_fields.items():
        kinds = sections(field)
        if not kinds:
            rows.append(_row(Config, "", name))
        for kind, section in kinds.items():
            choice = next((tag for tag in KINDS if tag in section.model_fields), "kind")
            about = (section.__doc__ or "").partition("\n")[0]
            rows.append(Row("", "", "", f"{name}{f' ({choice}={kind})' if kind else ''}: {about}"))
            rows += _options(section, name)
    return rows


def _options(section: "type[BaseModel]", prefix: str) -> list[Row]:
    from amgen.config.wording import KINDS, sections

    rows = []
    for name, field in sorted(section.model_fields.items(), key=lambda item: item[0] not in KINDS):
        rows.append(_row(section, prefix, name))
        for inner in sections(field).values():
            rows += _options(inner, f"{prefix}.{name}")
    return rows


def _row(section: "type[BaseModel]", prefix: str, name: str) -> Row:
    field, schema = section.model_fields[name], section.model_json_schema()["properties"][name]
    default = "needed" if field.is_required() else _word(field.get_default(call_default_factory=True))
    return Row(f"{prefix}.{name}".lstrip("."), _accepts(schema), default, field.description or "")


def _word(value: Any) -> str:
    """Return a value in the form that --set accepts."""
    import json

    return value if isinstance(value, str) else json.dumps(value)


BOUNDS = {"exclusiveMinimum": "> {}", "minimum": ">= {}", "exclusiveMaximum": "< {}", "maximum": "<= {}"}
NAMES = {"integer": "integer", "number": "number", "string": "text", "boolean": "true|false", "null": "null", "object": "section"}


def _accepts(schema: dict[str, Any]) -> str:
    """Return the values that an option accepts in words, from its JSON schema."""
    if "const" in schema or "enum" in schema:
        return "|".join(map(_word, schema.get("enum", [schema.get("const")])))
    if "anyOf" in schema:
        return " or ".join(map(_accepts, schema["anyOf"]))
    if "$ref" in schema:
        return "section"
    if schema["type"] == "array":
        items = schema.get("prefixItems") or [schema["items"]]
        return f"[{', '.join(map(_accepts, items))}{'' if 'prefixItems' in schema else ', ...'}]"
    bounds = [
        text.format(f"{schema[bound]:,}" if abs(schema[bound]) < 2**53 else "2^63") for bound, text in BOUNDS.items() if bound in schema
    ]
    return " ".join([NAMES[schema["type"]], *([", ".join(bounds)] if bounds else [])])
