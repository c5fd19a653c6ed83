"""Turn the formulas of a page into MathML while the site is built, so that a browser shows them without a script or the network.

`pymdownx.arithmatex` marks formulas in the Markdown, `$...$` and `$$...$$`; `latex2mathml` converts them.
"""

import html
import re

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

MARKED = re.compile(r'<(span|div) class="arithmatex">\s*\\[(\[](.*?)\\[)\]]\s*</\1>', re.DOTALL)
BEFORE_PUNCTUATION = re.compile(r'((?:<span class="formula">)?<math(?:(?!</math>).)*</math>(?:</span>)?)([.,;:)]+)', re.DOTALL)
"""A formula in the text and the punctuation after it, between which a browser would break the line."""
LONG = 60
"""Characters of LaTeX from which a formula in the text may be wider than a narrow page."""
SPACING = {
    "<mo>&#x0002F;</mo>": '<mo lspace="0" rspace="0">/</mo>',
    "<mi>log</mi>": '<mi>log</mi><mspace width="0.167em" />',
    "<mo>&#x02207;</mo>": '<mo lspace="0" rspace="0">&#x02207;</mo>',
}
"""What the converter leaves too wide or too tight."""


def on_page_content(content: str, page: object, **_: object) -> str:
    """Replace every marked formula of a page's HTML."""
    converted = MARKED.sub(lambda found: formula(html.unescape(found[2]).strip(), found[1] == "div", page), content)
    return BEFORE_PUNCTUATION.sub(r'<span class="joined">\1\2</span>', converted)


def formula(latex: str, display: bool, page: object) -> str:
    """Return MathML.

    Raises:
        PluginError: for a command that the converter does not know; it would leave the command as text.
    """
    paired = latex.replace(r"\lvert", r"\left\lvert ").replace(r"\rvert", r"\right\rvert ")
    markup = convert(paired, display="block" if display else "inline")
    for plain, spaced in SPACING.items():
        markup = markup.replace(plain, spaced)
    if unknown := re.search(r"\\[a-zA-Z]+", markup):
        raise PluginError(f"{page}: the formula {latex!r} has the unknown command {unknown[0]}")
    # A wide formula scrolls by itself instead of widening the page.
    if display:
        return f'<div class="formula">{markup}</div>'
    return f'<span class="formula">{markup}</span>' if len(latex) > LONG else markup
