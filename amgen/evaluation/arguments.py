"""Arguments of evaluations: reading and checking them before torch is loaded, which takes seconds."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from amgen.config import ADAPTIVE_SOLVERS, METRICS, SamplingConfig, change
from amgen.core.errors import UserError, unknown

UNWEIGHTED = ("kid", "prc")
"""Metrics that need images of equal weight."""
SPLITS = 10
"""Number of parts that the Inception Score is averaged over, as in its paper."""
NEIGHBOURS = 3
"""The k of precision and recall: their balls reach to the k-th nearest neighbour."""
FEATURES = ("inception", "efficientnet-lite0", "digits", "pixels")
"""Names of the feature extractors of amgen.evaluation.features."""
SWEPT = ("solver", "steps", "step_grid", "rho", "tolerance", "noise_level", "guidance")
"""Sampling settings that `--sweep` accepts."""


def parse_metrics(text: str) -> tuple[str, ...]:
    """Return the metrics of a text such as "fid,kid".

    Raises:
        UserError: for an unknown name.

    Example:
        >>> parse_metrics("fid, kid")
        ('fid', 'kid')
    """
    names = tuple(part.strip() for part in text.split(","))
    for name in names:
        if name not in METRICS:
            raise unknown("metric", name, [*METRICS, "all"])
    return names


def check_counts(metrics: Sequence[str], num: int, real: int | None, kid_subset_size: int) -> None:
    """Check that there are enough images for the metrics, before any image is generated.

    Args:
        metrics: some of METRICS.
        num: number of generated images.
        real: number of real images; None if it is unknown.
        kid_subset_size: images in each subset of KID.

    Raises:
        UserError: with the number that is needed.
    """
    count = num if real is None else min(num, real)
    if num < 8 or count < 4:
        raise UserError(f"a distance and its change with n need at least 8 generated and 4 real images, not {num} and {count}")
    if "kid" in metrics and kid_subset_size > count:
        raise UserError(
            f"KID subsets of {kid_subset_size} images need at least {kid_subset_size} images on each side, not {count}: "
            f"set the size of a subset to {count // 2}"
        )
    if "kid" in metrics and kid_subset_size < 2:
        raise UserError(f"kid_subset_size={kid_subset_size}: the estimate needs at least 2 images: set it to 1000 or so")
    if "is" in metrics and num < SPLITS:
        raise UserError(f"metrics=is: the score is a mean over {SPLITS} parts: generate at least {SPLITS} images, not {num}")
    if "prc" in metrics and count <= NEIGHBOURS:
        raise UserError(f"metrics=prc uses {NEIGHBOURS} neighbours: give more than {count} images")


def check_unprepared(file: str, preparation: Mapping[str, Any]) -> None:
    """Refuse options that prepare images if the reference is a file of statistics: its images were prepared before.

    Args:
        file: the file of statistics.
        preparation: options that prepare images, by name; None for those that are not set.

    Raises:
        UserError: naming the option.
    """
    for name, value in preparation.items():
        if value is not None:
            option = f"--{name} {value}" if isinstance(value, str) else f"--{'' if value else 'no-'}{name}"
            raise UserError(f"{option}: {file} holds statistics of images that are prepared already: leave it out")


def check_features(name: str) -> None:
    """Refuse an unknown name of features; module:callable is accepted.

    Raises:
        UserError: with the names that exist.
    """
    if ":" not in name and name not in FEATURES:
        raise unknown("features", name, [*FEATURES, "module:callable"])


def parse_sweep(texts: Iterable[str]) -> list[dict[str, Any]]:
    """Return all combinations of settings of the form `key=value,value`; the last key varies fastest. [{}] for no settings.

    Raises:
        UserError: for another form, an unknown key and a key that is given twice.

    Example:
        >>> parse_sweep(["solver=euler,heun", "steps=5"])
        [{'solver': 'euler', 'steps': 5}, {'solver': 'heun', 'steps': 5}]
    """
    axes: dict[str, list[Any]] = {}
    for text in texts:
        key, equals, values = text.partition("=")
        if key not in SWEPT:
            raise unknown("setting to sweep over", key, SWEPT)
        if key in axes:
            raise UserError(f"--sweep {text}: {key} is given twice: write all its values in one --sweep {key}=A,B")
        if not equals or not all(value.strip() for value in values.split(",")):
            raise UserError(f"--sweep {text}: expected values such as {key}=A,B")
        axes[key] = [_value(value) for value in values.split(",")]
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def check_settings(
    changes: Mapping[str, Any], combinations: Sequence[Mapping[str, Any]] = ({},), run: SamplingConfig | None = None
) -> None:
    """Refuse settings that do not exist, and settings that the solver does not use.

    Args:
        changes: settings by name; None keeps the run's setting. It is enough if one combination uses them.
        combinations: settings of a sweep. Each combination must use all of its own settings, or it would repeat another one.
        run: the settings of the run; None if they are not known yet. Then nothing that depends on them is checked.

    Raises:
        UserError: with the setting and the reason.
    """
    found = []
    for combination in combinations:
        settings = {key: value for key, value in {**changes, **combination}.items() if value is not None}
        change(SamplingConfig(), settings)
        found.append(_unused(settings, run))
        for name, reason in found[-1].items():
            if name in combination:
                raise UserError(f"--sweep {name}: {reason}: leave it out")
    for name in found[0]:
        if all(name in reasons for reasons in found):
            raise UserError(f"--{name.replace('_', '-')} {changes[name]}: {found[0][name]}: leave it out")


def _unused(settings: Mapping[str, Any], run: SamplingConfig | None) -> dict[str, str]:
    """Return the settings that the solver does not use, with the reason."""
    solver = settings.get("solver") or (run.solver if run else None)
    grid = settings.get("step_grid") or (run.step_grid if run else None)
    reasons = {}
    if solver in ADAPTIVE_SOLVERS:
        reasons = dict.fromkeys(("steps", "step_grid", "rho"), f"the solver {solver} chooses its own steps by --tolerance")
    elif solver is not None:
        reasons = {"tolerance": f"the solver {solver} takes a fixed number of --steps"}
    if grid not in (None, "polynomial"):
        reasons.setdefault("rho", f"it is the exponent of --step-grid polynomial, and the steps are {grid}")
    return {name: reason for name, reason in reasons.items() if name in settings}


def _value(text: str) -> Any:
    """Return a number, or else what YAML reads. (YAML alone reads 1e-3 as text.)"""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise UserError(f"--sweep: {text!r} is not a value: expected numbers or words") from None
