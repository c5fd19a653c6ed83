"""Names that evaluations are asked for by, and what can be checked of them before anything slow; nothing here loads torch."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from amgen.config import ADAPTIVE_SOLVERS, SamplingConfig, change
from amgen.core.errors import UserError, unknown

METRICS = ("fid", "kid", "is", "prc", "nearest")
UNWEIGHTED = ("kid", "prc")
"""Metrics of images that all count the same."""
SPLITS = 10
"""Parts that the Inception Score is averaged over, as its authors do."""
NEIGHBOURS = 3
"""Neighbours that reach the edge of the balls that precision and recall count in."""
FEATURES = ("inception", "efficientnet-lite0", "digits", "pixels")
"""Kinds of features, but for those of one's own."""
SWEPT = ("solver", "steps", "step_grid", "rho", "tolerance", "noise_level", "guidance")
"""Sampling settings that can be swept over."""


def metrics(text: str) -> tuple[str, ...]:
    """Read names of metrics such as fid,kid.

    Raises:
        UserError: for an unknown name.
    """
    names = tuple(part.strip() for part in text.split(","))
    for name in names:
        if name not in METRICS:
            raise unknown("metric", name, [*METRICS, "all"])
    return names


def check_counts(metrics: Sequence[str], num: int, real: int | None, kid_subset_size: int) -> None:
    """Refuse what `num` generated and `real` images (None for moments alone, or if it is not known yet) cannot give, before they are made.

    Raises:
        UserError: with the number that is needed.
    """
    count = num if real is None else min(num, real)
    if num < 8 or count < 4:
        raise UserError(f"a distance and its change with n need at least 8 generated and 4 real images, not {num} and {count}")
    if "kid" in metrics and kid_subset_size > count:
        raise UserError(
            f"KID subsets of {kid_subset_size} images need as many on each side, not {count}: set the size of a subset to {count // 2}"
        )
    if "kid" in metrics and kid_subset_size < 2:
        raise UserError(f"kid_subset_size={kid_subset_size}: the estimate needs at least 2 images: set it to 1000 or so")
    if "is" in metrics and num < SPLITS:
        raise UserError(f"metrics=is: the score is a mean over {SPLITS} parts: draw at least as many images, not {num}")
    if "prc" in metrics and count <= NEIGHBOURS:
        raise UserError(f"metrics=prc look at {NEIGHBOURS} neighbours: give more than {count} images")


def check_unprepared(file: str, preparation: Mapping[str, Any]) -> None:
    """Refuse options that prepare images beside statistics, whose images were prepared when they were made.

    Raises:
        UserError: naming the option.
    """
    for name, value in preparation.items():
        if value is not None:
            option = f"--{name} {value}" if isinstance(value, str) else f"--{'' if value else 'no-'}{name}"
            raise UserError(f"{option}: {file} holds statistics, whose images are prepared already: leave it out")


def check_features(name: str) -> None:
    """Refuse features of an unknown name.

    Raises:
        UserError: naming those that there are.
    """
    if ":" not in name and name not in FEATURES:
        raise unknown("features", name, [*FEATURES, "module:callable"])


def sweep(texts: Iterable[str]) -> list[dict[str, Any]]:
    """Read `key=value,value` settings and return all their combinations, the last key varying fastest; [{}] for none.

    Raises:
        UserError: for another form, an unknown key or one that is named twice.
    """
    axes: dict[str, list[Any]] = {}
    for text in texts:
        key, equals, values = text.partition("=")
        if key not in SWEPT:
            raise unknown("setting to sweep over", key, SWEPT)
        if key in axes:
            raise UserError(f"--sweep {text}: {key} is swept over already")
        if not equals or not all(value.strip() for value in values.split(",")):
            raise UserError(f"--sweep {text}: expected values such as {key}=A,B")
        axes[key] = [_value(value) for value in values.split(",")]
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def check_settings(
    changes: Mapping[str, Any], combinations: Sequence[Mapping[str, Any]] = ({},), run: SamplingConfig | None = None
) -> None:
    """Refuse settings that do not exist, and those that the solver has no use for.

    Args:
        changes: settings by name; None leaves what the run has. One combination that has a use for them is enough.
        combinations: settings that are swept over, each of which must have a use for all of its own: others would be the same again.
        run: the settings of the run; None where they are not known yet: then what depends on them is not looked at.

    Raises:
        UserError: naming the setting and the reason.
    """
    found = []
    for combination in combinations:
        settings = {key: value for key, value in {**changes, **combination}.items() if value is not None}
        change(SamplingConfig(), settings)
        found.append(_useless(settings, run))
        for name, reason in found[-1].items():
            if name in combination:
                raise UserError(f"--sweep {name}: {reason}: leave it out")
    for name in found[0]:
        if all(name in reasons for reasons in found):
            raise UserError(f"--{name.replace('_', '-')} {changes[name]}: {found[0][name]}: leave it out")


def _useless(settings: Mapping[str, Any], run: SamplingConfig | None) -> dict[str, str]:
    """Return which settings make no difference, and why."""
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
    """Read a number, or what YAML makes of it (which takes 1e-3 for a word)."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise UserError(f"--sweep: {text!r} is no value: expected numbers or words") from None
