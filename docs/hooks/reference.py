"""Make a page of the API reference for each package of amgen: its docstring, then each of its modules.

The pages are made while the site is built, so that no list of modules has to be kept. A package that `nav` in mkdocs.yml does not name
is an error of the strict build.
"""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

SOURCES = Path(__file__).parents[2] / "amgen"
PACKAGE_ALONE = "    options: {members: false, show_root_heading: false, show_root_toc_entry: false}"


def on_files(files: Files, config: MkDocsConfig, **_: object) -> Files:
    """Add the pages."""
    for package in sorted(file.parent for file in SOURCES.glob("*/__init__.py")):
        name = f"amgen.{package.name}"
        modules = [file.relative_to(SOURCES).with_suffix("").parts for file in sorted(package.rglob("*.py"))]
        lines = [f"# {name}", "", f"::: {name}", PACKAGE_ALONE, ""]
        for parts in modules:
            if not parts[-1].startswith("_"):
                lines += [f"::: amgen.{'.'.join(parts)}", ""]
        files.append(File.generated(config, f"api/{package.name}.md", content="\n".join(lines)))
    return files
