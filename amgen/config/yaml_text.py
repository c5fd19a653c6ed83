"""Reading YAML safely: plain values only, with limits on size and nesting."""

import re
import stat
from pathlib import Path
from typing import Any

import yaml

from amgen.core.errors import UserError, short

LARGEST_FILE = 4 * 2**20
"""Bytes of the largest file that is read. The record of `data.axes` in 400 dimensions takes 3 MB."""

MOST_VALUES = 200_000
"""Most values in one text; every use of an anchor counts."""

DEEPEST = 20
"""Deepest nesting. Options need five levels."""

LARGEST_INTEGER = 2**63
"""Integers must be smaller than this in absolute value."""


def read_file(path: Path) -> Any:
    """Return the contents of a YAML file; see `read`.

    Raises:
        UserError: if the file cannot be read, or holds values that options cannot have.
    """
    try:
        about = path.stat()
        if stat.S_ISDIR(about.st_mode):
            raise UserError(f"cannot read the configuration {path}: it is a folder: give a .yaml file")
        if not stat.S_ISREG(about.st_mode):  # a pipe may never end, and a device never does
            raise UserError(f"cannot read the configuration {path}: it is not a regular file: give a .yaml file")
        if about.st_size > LARGEST_FILE:
            raise UserError(f"cannot read the configuration {path}: it has {about.st_size:,} bytes: expected at most {LARGEST_FILE:,}")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        reason = f"it is not UTF-8 text ({error.reason} at byte {error.start:,}): save it as UTF-8"
        raise UserError(f"cannot read the configuration {path}: {reason}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the configuration {path}: {getattr(error, 'strerror', None) or error}") from None
    return read(text, str(path))


def read(text: str, source: str) -> Any:
    """Return the contents of a YAML text: strings, numbers, booleans, null, and lists and dicts of them.

    Anchors and merged mappings are replaced by copies of their contents.

    Args:
        text: the text.
        source: where it comes from, for errors.

    Raises:
        UserError: if the text is not valid YAML, is too large or nested too deeply, contains itself, or holds a value of another type.
    """
    try:
        return _plain(yaml.load(text, Loader=_Loader))
    except yaml.YAMLError as error:
        raise UserError(f"{source} is not valid YAML: {_reason(error)}") from None
    except (ValueError, OverflowError) as error:  # raised for numbers with thousands of digits, and for dates
        reason = "a number has too many digits" if "digits" in str(error) else " ".join(str(error).split())[:200]
        raise UserError(f"{source} is not valid YAML: {reason}") from None


class _Loader(yaml.SafeLoader):
    """A YAML loader with limits. 1e-4 is a number, as in YAML 1.2; dates are strings; a key that is given twice is an error."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (as in the base class)
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str):
        super().__init__(text)
        self.depth = 0
        self.count = 0
        self.sizes: dict[int, tuple[int, int]] = {}
        """The number of values and the depth of each complete node by its id, with anchors expanded."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node, and check its size and depth."""
        event = self.peek_event()
        self.depth += 1
        if self.depth > DEEPEST:
            raise _refusal(f"it is nested more than {DEEPEST} deep", event)
        node = super().compose_node(parent, index)
        self.depth -= 1
        if node is not None:
            self._measure(node, event)
        return node

    def _measure(self, node: yaml.Node, event: yaml.Event) -> None:
        """Add the size and depth of a node to `sizes`, and refuse those above the limits."""
        if isinstance(event, yaml.AliasEvent):
            if id(node) not in self.sizes:
                raise _refusal(f"the anchor {short(event.anchor)} contains itself", event)
        else:
            inner = node.value if isinstance(node, yaml.CollectionNode) else []
            parts = [part for entry in inner for part in (entry if isinstance(entry, tuple) else (entry,))]
            sizes = [self.sizes[id(part)] for part in parts]
            self.sizes[id(node)] = (1 + sum(size for size, _ in sizes), 1 + max((depth for _, depth in sizes), default=0))
        size, depth = self.sizes[id(node)]
        self.count += 1
        if max(size, self.count) > MOST_VALUES:
            raise _refusal(f"it holds more than {MOST_VALUES:,} values", event)
        if depth > DEEPEST:
            raise _refusal(f"it is nested more than {DEEPEST} deep", event)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Construct a dict, and refuse keys that are not strings or are given twice."""
        seen = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.tag != "tag:yaml.org,2002:str":
                shown = short(key.value) if isinstance(key, yaml.ScalarNode) else "a list or mapping"
                raise yaml.constructor.ConstructorError(None, None, f"the key {shown} is not a string", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {short(key.value)} is given twice", node.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def _refusal(problem: str, event: yaml.Event) -> yaml.YAMLError:
    """Return an error with the place of an event."""
    mark: Any = event.start_mark
    return yaml.composer.ComposerError(None, None, problem, mark)


def _plain(value: Any) -> Any:
    """Return a deep copy of a value.

    Raises:
        yaml.YAMLError: if it holds a type or a value that options cannot have.
    """
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, str):
        if "\0" in value:
            raise yaml.YAMLError(f"{short(value)} holds the character 0")
        return value
    if isinstance(value, int) and not -LARGEST_INTEGER < value < LARGEST_INTEGER:
        raise yaml.YAMLError(f"an integer has {value.bit_length():,} bits: expected at most 63")
    if value is None or isinstance(value, bool | int | float):
        return value
    raise yaml.YAMLError(f"a value is of a type that options cannot have: {type(value).__name__}")


def _reason(error: yaml.YAMLError) -> str:
    """Return a short message for a YAML error, with its line and column."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None)
    text = " ".join(str(problem or error).split())
    text = text if len(text) <= 300 else f"{text[:200]}...{text[-60:]}"
    return f"{text} (line {mark.line + 1}, column {mark.column + 1})" if mark is not None and problem else text
