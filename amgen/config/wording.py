"""Error messages for wrong options: the key, the value and what was expected, in place of pydantic's messages."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, Tag, ValidationError
from pydantic.fields import FieldInfo

from amgen.core.errors import UserError, nearest, short, unknown

KINDS = ("kind", "form")
"""Names of the option that decides which other options its section has."""


def sections(field: FieldInfo) -> dict[str, type[BaseModel]]:
    """Return the section classes that a field may hold, by kind.

    A field with a single section class has it under the kind "". A field that holds no section has none.
    """
    found = {}
    members = [field.annotation] if isinstance(field.annotation, type) else get_args(field.annotation)
    for member in members:
        section, *tags = get_args(member) if get_args(member) else (member,)
        if isinstance(section, type) and issubclass(section, BaseModel):
            found[tags[0].tag if tags and isinstance(tags[0], Tag) else ""] = section
    return found


def choice_of(kinds: Mapping[str, type[BaseModel]]) -> str:
    """Return the option that chooses among the kinds of a section: `kind`, or `form` for losses."""
    return next(key for key in KINDS if all(key in section.model_fields for section in kinds.values()))


def check_sections(options: Mapping[str, Any], root: type[BaseModel], prefix: str = "") -> None:
    """Check that sections are given as dicts and that their kinds exist. The options inside are not checked here.

    Args:
        options: options as they were read.
        root: the section class that they belong to.
        prefix: what precedes their keys in messages.

    Raises:
        UserError: for the first section that is wrong.
    """
    for name, value in options.items():
        kinds = sections(root.model_fields[name]) if name in root.model_fields else {}
        if not kinds or (value is None and type(None) in get_args(root.model_fields[name].annotation)):
            continue
        key = f"{prefix}{name}"
        if not isinstance(value, dict):
            raise section_expected(key, value, kinds)
        section = kinds.get("")
        if section is None:
            choice = choice_of(kinds)
            kind = value.get(choice, root.model_fields[name].get_default(call_default_factory=True).model_dump()[choice])
            if not isinstance(kind, str):
                raise UserError(f"{key}.{choice}={short(kind)}: expected one of {', '.join(kinds)}")
            if kind not in kinds:
                raise UserError(f"{key}.{choice}: {unknown(choice, kind, kinds)}")
            section = kinds[kind]
        check_sections(value, section, f"{key}.")


def section_expected(key: str, value: object, kinds: Mapping[str, type[BaseModel]]) -> UserError:
    """Return the error for a value given in place of a section, such as path=vp."""
    if "" in kinds:
        example = f"{key}.{next(iter(kinds[''].model_fields))}=..."
    else:
        example = f"{key}.{choice_of(kinds)}={value if isinstance(value, str) and value in kinds else next(iter(kinds))}"
    return UserError(f"{key}={short(value)}: {key} is a section, not an option: give its options, such as {example}")


def first_problem(error: ValidationError, root: type[BaseModel]) -> str:
    """Return the first message of a check of `root` as `section.key=value: what was expected`."""
    problem = error.errors(include_url=False)[0]
    keys, section = _resolve([str(part) for part in problem["loc"]], root)
    key = ".".join(keys)
    kind, context = problem["type"], problem.get("ctx", {})
    if kind == "extra_forbidden":
        options = ", ".join(section.model_fields)
        return f"unknown option {short(key)}{nearest(keys[-1], section.model_fields)}: options here are {options}"
    if kind == "value_error":  # raised by a check of amgen, whose message is complete
        return str(context["error"])
    if kind == "missing":
        return f"{key} is missing: give it a value"
    return f"{key}={short(problem['input'])}: expected {expected(kind, context)}"


def first_error(error: object) -> str:
    """Return the first message of a check without keys, or an empty string for an error of another class."""
    if not isinstance(error, ValidationError):
        return ""
    problem = error.errors(include_url=False)[0]
    return f"{short(problem['input'])}: expected {expected(problem['type'], problem.get('ctx', {}))}"


def expected(kind: str, context: Mapping[str, Any]) -> str:
    """Return what was expected of a value.

    Args:
        kind: type of the error in pydantic.
        context: its context: bounds and choices.
    """
    if kind in ("too_short", "too_long"):
        bound = f"at least {context['min_length']}" if kind == "too_short" else f"at most {context['max_length']}"
        return f"{bound} values, not {context.get('actual_length', 'more')}"
    wordings = {
        "greater_than": "a number greater than {gt}",
        "greater_than_equal": "a number of at least {ge}",
        "less_than": "a number less than {lt}",
        "less_than_equal": "a number of at most {le}",
        "literal_error": "{expected}",
        "string_pattern_mismatch": "text of the form {pattern}",
    }
    if kind in wordings:
        return wordings[kind].format(**{name: _number(value) for name, value in context.items()})
    types = {
        "int_": "an integer",
        "float_": "a number",
        "finite_number": "a finite number",
        "bool_": "true or false",
        "string_too_short": "text that is not empty",
        "string_": "text (in quotes, where it reads as a number)",
        "list_": "a list, such as [1, 2]",
        "dict_": "names with values",
        "tuple_": "a list, such as [1, 2]",
        "none_required": "null",
    }
    return next((text for start, text in types.items() if kind.startswith(start)), "another value")


def _number(value: Any) -> Any:
    """Return a bound in a short form."""
    return f"{value:g}" if isinstance(value, float) else value


def _resolve(location: Sequence[str], section: type[BaseModel]) -> tuple[list[str], type[BaseModel]]:
    """Return the keys of an error's location, and the class of the section that holds the last one.

    Args:
        location: where pydantic found the error in `section`: keys, and the kinds of sections between them.
        section: the class that was checked.
    """
    keys: list[str] = []
    parts = list(location)
    while parts:
        part = parts.pop(0)
        field = section.model_fields.get(part)
        if field is None and keys and not part.isdecimal() and keys[-1] in section.model_fields:
            break  # the rest of the location names one of several types that the option may have
        keys.append(part)
        inner = sections(field) if field else {}
        if "" in inner:
            section = inner[""]
        elif parts and parts[0] in inner:
            section = inner[parts.pop(0)]
    return keys, section
