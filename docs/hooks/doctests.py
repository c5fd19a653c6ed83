"""Show the examples of docstrings (`>>>`) as code: Markdown would take the prompts for quotations."""

import textwrap

import griffe


def fenced(text: str) -> str:
    """Put a fence around each block of lines that starts with a prompt and ends with an empty line, unless it has one."""
    lines: list[str] = []
    block: list[str] = []
    in_fence = False
    for line in [*text.splitlines(), ""]:
        in_fence ^= line.lstrip().startswith("```")
        if not in_fence and (line.lstrip().startswith(">>>") or (block and line.strip())):
            block.append(line)
            continue
        if block:
            indent = block[0][: len(block[0]) - len(block[0].lstrip())]
            code = textwrap.dedent("\n".join(block)).splitlines()
            lines += ["", *(f"{indent}{part}" for part in ("```pycon", *code, "```")), ""]
            block = []
        lines.append(line)
    return "\n".join(lines[:-1])


class Doctests(griffe.Extension):
    """Fence the examples of every docstring."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        """Change the docstring of one object."""
        if obj.docstring is not None and ">>>" in obj.docstring.value:
            obj.docstring.value = fenced(obj.docstring.value)
