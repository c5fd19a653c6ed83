"""YAML as options are written in: plain values of bounded size, whatever the file holds."""

import re
import stat
from pathlib import Path
from typing import Any

import yaml

from amgen.core.errors import UserError, short

LARGEST_FILE = 4 * 2**20
"""Bytes of the largest file that is read: a whitening of 400 dimensions, recorded with a run, takes 3 MB."""

MOST_VALUES = 200_000
"""Most values of one text, every use of an anchor counted."""

DEEPEST = 20
"""Deepest nesting; options need five levels."""

LARGEST_INTEGER = 2**63


def read_file(path: Path) -> Any:
    """Return what a YAML file holds.

    Raises:
        UserError: if it cannot be read, or holds what options cannot be.
    """
    try:
        about = path.stat()
        if stat.S_ISDIR(about.st_mode):
            raise UserError(f"cannot read the configuration {path}: it is a folder: give a .yaml file")
        if not stat.S_ISREG(about.st_mode):  # a pipe may never end, and a device never does
            raise UserError(f"cannot read the configuration {path}: it is no regular file")
        if about.st_size > LARGEST_FILE:
            raise UserError(f"cannot read the configuration {path}: it has {about.st_size:,} bytes, of {LARGEST_FILE:,} at most")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"cannot read the configuration {path}: it is not UTF-8 text ({error.reason} at byte {error.start:,})") from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the configuration {path}: {getattr(error, 'strerror', None) or error}") from None
    return read(text, str(path))


def read(text: str, source: str) -> Any:
    """Return what a YAML text holds: words, numbers, truth values, null, and lists and dicts of these.

    Anchors and merged mappings are replaced by what they stand for, so that nothing is shared.

    Args:
        text: the text.
        source: names it in errors.

    Raises:
        UserError: if it is not valid, too large, nested too deeply or within itself, or holds a value that no option has.
    """
    try:
        return _plain(yaml.load(text, Loader=_Loader))
    except yaml.YAMLError as error:
        raise UserError(f"{source} is not valid YAML: {_reason(error)}") from None
    except (ValueError, OverflowError) as error:  # of numbers with thousands of digits, and of dates
        reason = "a number has too many digits" if "digits" in str(error) else " ".join(str(error).split())[:200]
        raise UserError(f"{source} is not valid YAML: {reason}") from None


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-4 is a number, as YAML 1.2 has it, dates are words, and a key given twice is an error."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (as the class above declares it)
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str):
        super().__init__(text)
        self.depth = 0
        self.count = 0
        self.sizes: dict[int, tuple[int, int]] = {}
        """Of each node that is complete: how many values it holds and how deep they lie, anchors expanded."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
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
        if isinstance(event, yaml.AliasEvent):
            if id(node) not in self.sizes:
                raise _refusal(f"the anchor {short(event.anchor)} holds itself", event)
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
        seen = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.tag != "tag:yaml.org,2002:str":
                shown = short(key.value) if isinstance(key, yaml.ScalarNode) else "a list or mapping"
                raise yaml.constructor.ConstructorError(None, None, f"the key {shown} is not a word", key.start_mark)
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
    mark: Any = event.start_mark
    return yaml.composer.ComposerError(None, None, problem, mark)


def _plain(value: Any) -> Any:
    """Return a copy that shares nothing, of the types that options have."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, str):
        if "\0" in value:
            raise yaml.YAMLError(f"{short(value)} holds the character 0")
        return value
    if isinstance(value, int) and not -LARGEST_INTEGER < value < LARGEST_INTEGER:
        raise yaml.YAMLError(f"a whole number of {value.bit_length():,} bits: 63 are the most")
    if value is None or isinstance(value, bool | int | float):
        return value
    raise yaml.YAMLError(f"a value is of a type that options do not have: {type(value).__name__}")


def _reason(error: yaml.YAMLError) -> str:
    """Word an error of YAML in a few words, with its place."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None)
    text = " ".join(str(problem or error).split())
    text = text if len(text) <= 300 else f"{text[:200]}...{text[-60:]}"
    return f"{text} (line {mark.line + 1}, column {mark.column + 1})" if mark is not None and problem else text
