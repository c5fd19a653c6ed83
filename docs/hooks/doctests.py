"""Show the examples of docstrings (`>>>`) as code: Markdown would take the prompts for quotations."""

import re

import griffe

HEADING = re.compile(r"^( *)Example:$", re.MULTILINE)
"""How docstrings of amgen begin an example; griffe knows the plural."""


def fenced(text: str) -> str:
    """Put a fence around each block of unindented lines that starts with a prompt and ends with an empty line."""
    lines: list[str] = []
    inside = False
    for line in [*text.splitlines(), ""]:
        if inside != (line.startswith(">>>") or (inside and bool(line.strip()))):
            lines.append("```" if inside else "```pycon")
            inside = not inside
        lines.append(line)
    return "\n".join(lines[:-1])


class Doctests(griffe.Extension):
    """Mark the examples of every docstring."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        """Change the docstring of one object."""
        if obj.docstring is not None and ">>>" in obj.docstring.value:
            obj.docstring.value = fenced(HEADING.sub(r"\1Examples:", obj.docstring.value))
