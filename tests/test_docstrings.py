"""The examples in docstrings run, and what users call has one."""

import doctest
import importlib
import inspect
import io
import re
from pathlib import Path

import pytest
import torch

from amgen import config

ROOT = Path(__file__).parents[1]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
TINY_RUN = (
    "action.width=8",
    "training.images=128",
    "training.batch_size=32",
    "training.log_every=64",
    "training.warmup_images=64",
    "training.sample_every=0",
    "coupling.group=32",
    "sampling.steps=2",
)
"""Overrides of the preset `digits` for the run `runs/digits` that examples load: 4 steps of a small network."""

WITH_EXAMPLES = ("amgen.actions", "amgen.dynamics", "amgen.losses", "amgen.paths", "amgen.solvers")
"""Packages whose public classes and functions each have an example: all that `__all__` lists but `WITHOUT_EXAMPLES`."""
ALSO_WITH_EXAMPLES = (
    "amgen:load",
    "amgen.config:change",
    "amgen.config:load",
    "amgen.data:Units",
    "amgen.data:open_dataset",
    "amgen.data:Loadings",
    "amgen.data.annotated:numbers",
    "amgen.data:training_stream",
    "amgen.evaluation.distances:mmd_squared",
    "amgen.evaluation.distances:wasserstein",
    "amgen.evaluation.evaluator:Evaluator",
    "amgen.evaluation.features:make_extractor",
    "amgen.evaluation.frechet:frechet_distance",
    "amgen.evaluation.frechet:matched_distance",
    "amgen.evaluation.likelihood:evaluate",
    "amgen.evaluation.metrics:inception_score",
    "amgen.evaluation.metrics:kernel_distance",
    "amgen.evaluation.metrics:nearest",
    "amgen.evaluation.metrics:precision_recall",
    "amgen.evaluation.reference:open_reference",
    "amgen.evaluation.restoration:psnr",
    "amgen.evaluation.restoration:structural_similarities",
    "amgen.sampling:Model.generate",
    "amgen.sampling:Model.sample",
    "amgen.sampling:effective_sample_size",
    "amgen.sampling:generate_all",
    "amgen.sampling:resample",
    "amgen.sampling.cells:cell_dynamics",
    "amgen.sampling.populations:simulate_population",
)
"""Further names that have an example: functions, classes or methods, as module:name, such as amgen.sampling:Model.sample."""
WITHOUT_EXAMPLES = {
    "Action": "a base class",
    "ActionMatchingLoss": "a base class",
    "AffinePath": "a base class",
    "Boundary": "a part of PathSample",
    "Coupling": "a base class",
    "DynamicsType": "a base class",
    "KnownPixelsPath": "a base class",
    "LossTerms": "what losses return",
    "ODESolver": "a base class",
    "Path": "a base class",
    "PathSample": "what Path.sample returns",
    "SDESolver": "a base class",
    "Schedule": "a base class",
    "TimeOffset": "an argument of actions for unbalanced dynamics",
    "TimeSampler": "a base class",
}
"""Public classes that users do not make themselves."""


def modules() -> list[str]:
    """Return the modules of amgen, without the one that starts the command."""
    files = sorted((ROOT / "amgen").rglob("*.py"))
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in files]
    return [name for name in names if not name.endswith("__main__")]


def expected() -> list[str]:
    """Return the names that have an example, as module:name."""
    found = list(ALSO_WITH_EXAMPLES)
    for package in WITH_EXAMPLES:
        module = importlib.import_module(package)
        public = [name for name in module.__all__ if inspect.isclass(getattr(module, name)) or inspect.isfunction(getattr(module, name))]
        found += [f"{package}:{name}" for name in public if name not in WITHOUT_EXAMPLES]
        # The solvers themselves are public by their names in the tables of the package.
        tables = [value for name, value in vars(module).items() if name.isupper() and isinstance(value, dict)]
        classes = {value for table in tables for value in table.values() if inspect.isclass(value)}
        found += [f"{value.__module__}:{value.__name__}" for value in classes if value.__name__ not in public]
    return sorted(found)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The current folder of the examples, which holds a trained run."""
    from amgen.training.main import train

    found = tmp_path_factory.mktemp("examples")
    train(config.load("digits", TINY_RUN), found / "runs" / "digits")
    return found


@pytest.mark.parametrize("name", modules())
def test_examples_run(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each docstring's example prints what it says, from the folder with the run and with torch's seed 0."""
    monkeypatch.chdir(folder)
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    said = io.StringIO()
    for example in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(name)):
        torch.manual_seed(0)
        runner.run(example, out=said.write)
    assert not runner.failures, said.getvalue()


@pytest.mark.parametrize("name", expected())
def test_what_users_call_has_an_example(name: str) -> None:
    module, _, attribute = name.partition(":")
    value = importlib.import_module(module)
    for part in attribute.split("."):
        value = getattr(value, part)
    assert re.search(r"^\s*>>> ", value.__doc__ or "", re.MULTILINE), f"{name} has no example"
