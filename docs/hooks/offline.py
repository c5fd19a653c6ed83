"""Refuse pages that would fetch anything from the network when they are viewed."""

import re

from mkdocs.exceptions import PluginError

FETCH = re.compile(
    r"<(?:(?:script|img|iframe|source)\b[^>]*\bsrc|link\b(?=[^>]*\brel=[\"']?(?:stylesheet|icon|preload|preconnect))[^>]*\bhref)"
    r"\s*=\s*[\"']?(?:https?:)?//[^>]*>"
)


def on_post_page(output: str, page: object, **_: object) -> str:
    """Return the page as it is.

    Raises:
        PluginError: naming what would be fetched.
    """
    if found := FETCH.search(output):
        raise PluginError(f"{page}: {found[0]} would be fetched from the network")
    return output
