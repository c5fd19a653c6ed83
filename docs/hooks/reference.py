"""Make a page of the API reference for each package of amgen: its docstring, then each of its modules, those that users call first.

The pages are made while the site is built, so that no list of modules has to be kept. A package that `nav` in mkdocs.yml does not name
is an error of the strict build.
"""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

SOURCES = Path(__file__).parents[2] / "amgen"
FIRST = {
    "config": ["reading", "run"],
    "data": ["opening", "stream"],
    "evaluation": ["evaluator", "metric_options", "report", "scores", "reference", "likelihood", "distances", "frechet", "metrics"],
    "losses": ["action_matching"],
    "paths": ["base", "affine"],
    "sampling": ["model", "request", "generate", "populations"],
    "solvers": ["ode", "sde"],
    "training": ["main", "loop"],
}
"""Modules at the start of their package's page; the others follow in alphabetical order."""
PACKAGE_ALONE = "    options: {members: false, show_root_heading: false, show_root_toc_entry: false}"


def on_files(files: Files, config: MkDocsConfig, **_: object) -> Files:
    """Add the pages."""
    for package in sorted(file.parent for file in SOURCES.glob("*/__init__.py")):
        name = f"amgen.{package.name}"
        first = [package / f"{module}.py" for module in FIRST.get(package.name, [])]
        files_in_order = [*first, *sorted(set(package.rglob("*.py")).difference(first))]
        modules = [file.relative_to(SOURCES).with_suffix("").parts for file in files_in_order]
        lines = [f"# {name}", "", f"::: {name}", PACKAGE_ALONE, ""]
        for parts in modules:
            if not parts[-1].startswith("_"):
                lines += [f"::: amgen.{'.'.join(parts)}", ""]
        files.append(File.generated(config, f"api/{package.name}.md", content="\n".join(lines)))
    return files
