"""The source tree of amgen, which is not the package `amgen`: that is the folder of this name in it.

Where the tree itself is called amgen and is installed in editable form, Python started in the folder around it takes the tree for the
package. This file then says so; it is not installed.
"""

from pathlib import Path


def __getattr__(name: str) -> object:
    if name in ("load", "__version__"):
        raise ImportError(
            f"this is not the package amgen but the source tree {Path(__file__).parent}, which lies in the folder that Python was started "
            "in and has the same name: start Python elsewhere, for instance in the source tree"
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
