"""Which sections of a configuration do not go together, and what to do instead."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from amgen.config.data import DataConfig, SimulatedConfig, SnapshotsConfig
from amgen.config.parts import (
    ColourisationPathConfig,
    InPaintingPathConfig,
    MarginalLossConfig,
    SnapshotsPathConfig,
    SuperResolutionPathConfig,
)
from amgen.core.names import ODE_SOLVERS, SDE_SOLVERS, VP_TRACE

if TYPE_CHECKING:
    from amgen.config.run import Config


def mismatches(config: "Config") -> Iterator[str]:
    """Yield what is wrong with the combination of sections, each with its reason and what to do instead."""
    path, dynamics, loss, coupling = config.path, config.dynamics, config.loss, config.coupling
    conditional = loss.form == "conditional"
    if config.evaluation.every and config.data.kind != "images":
        yield f"evaluation.every scores images, and data.kind={config.data.kind} are points: leave it at 0"
    if config.evaluation.metrics == ("nearest",):
        yield "evaluation.metrics=nearest does not tell which weights are better: add fid"
    if isinstance(loss, MarginalLossConfig) and loss.probes != 1 and dynamics.kind != "entropic":
        yield f"loss.probes={loss.probes} is for the Laplacian of entropic dynamics, not dynamics.kind={dynamics.kind}: leave it out"
    yield from _solver_mismatches(config)
    if config.sampling.guidance != 1 and not config.action.label_dropout:
        yield (
            f"sampling.guidance={config.sampling.guidance} needs a model that also learned without classes: "
            "train with action.label_dropout=0.1"
        )
    if not isinstance(config.data, DataConfig):
        yield from _population_mismatches(config, config.data)
        return
    if path.kind == "snapshots" or config.action.kind == "mlp":
        yield f"path.kind={path.kind}, action.kind={config.action.kind}: snapshots and mlp are for points: set data.kind=snapshots"
    if isinstance(path, ColourisationPathConfig) and config.data.channels != 3:
        yield "path.kind=colourisation needs colours: set data.channels=3"
    if isinstance(path, ColourisationPathConfig) and path.schedule == "vp" and path.noise < 10 * VP_TRACE:
        yield (
            f"path.schedule=vp leaves {VP_TRACE} of the colours at t = 0, which path.noise={path.noise} does not hide: set path.noise to "
            f"{10 * VP_TRACE:g} or more, or path.schedule=linear"
        )
    if isinstance(path, SuperResolutionPathConfig) and path.factor > config.data.size:
        yield f"path.factor={path.factor} leaves one pixel of {config.data.size}: choose a smaller factor"
    if isinstance(path, InPaintingPathConfig) and path.mask is not None:
        size = config.data.size
        if len(path.mask) != size or any(len(row) != size for row in path.mask):
            yield f"path.mask has {len(path.mask)} rows of {len(path.mask[0])}: expected {size} rows of data.size={size}"
        if not any("x" in row for row in path.mask):
            yield "path.mask paints nothing: mark the pixels to paint with x (or light ones in the image file)"
    if coupling.kind == "ot":
        if path.kind not in ("linear", "vp", "trigonometric"):
            yield (
                f"coupling.kind=ot with path.kind={path.kind}: what generation is given would tell of the noise, which must stay "
                "independent of it: set coupling.kind=independent"
            )
        if config.data.masses is not None and config.data.masses.start is not None:
            yield (
                "coupling.kind=ot with data.masses.start: noise joined to heavier images would no longer be standard normal: "
                "set coupling.kind=independent, or data.masses.start=null"
            )
    if dynamics.kind == "entropic" and conditional:
        if path.kind == "torus":
            yield (
                "dynamics.kind=entropic in conditional form needs x_t to be Gaussian given its ends, which the torus path is not: "
                "set loss.form=marginal"
            )
        if coupling.kind == "ot":
            yield (
                "dynamics.kind=entropic in conditional form needs noise that is Gaussian given the image, which coupling.kind=ot "
                "undoes: set coupling.kind=independent, or loss.form=marginal"
            )
        if dynamics.schedule == "constant" and loss.weight == "constant":
            yield (
                "dynamics.schedule=constant in conditional form asks for a drift that grows as 1/a_t towards the data, with unbounded "
                "variance: set dynamics.schedule to 1-t or sqrt(a), loss.weight=1-t, or loss.form=marginal"
            )
    if dynamics.kind == "entropic" and dynamics.schedule == "sqrt(a)" and path.kind == "torus":
        yield "dynamics.schedule=sqrt(a) needs the noise scale a_t of a Gaussian path, which the torus has not: set dynamics.schedule=1-t"
    if config.data.masses is not None and dynamics.kind != "unbalanced":
        yield f"data.masses change in time, which dynamics.kind={dynamics.kind} cannot follow: set dynamics.kind=unbalanced"
    if dynamics.kind == "unbalanced" and config.action.classes:
        yield "dynamics.kind=unbalanced moves mass between classes, so the action must not be told the class: set action.classes=0"


def _population_mismatches(config: "Config", data: SnapshotsConfig | SimulatedConfig) -> Iterator[str]:
    """Yield what is wrong with the combination of sections for a population of points."""
    path, dynamics, conditional = config.path, config.dynamics, config.loss.form == "conditional"
    if not isinstance(path, SnapshotsPathConfig) or config.action.kind != "mlp":
        yield (
            f"path.kind={path.kind}, action.kind={config.action.kind} are for images: set path.kind=snapshots and action.kind=mlp for "
            f"data.kind={data.kind}"
        )
        return
    if config.coupling.kind == "ot" and data.paired:
        yield "coupling.kind=ot would part rows that belong together (data.paired): set coupling.kind=independent"
    if dynamics.kind == "entropic" and not path.noise:
        if conditional:
            yield "dynamics.kind=entropic in conditional form needs path.noise above 0, for the score: set it, or loss.form=marginal"
        elif dynamics.schedule == "sqrt(a)":
            yield "dynamics.schedule=sqrt(a) needs path.noise above 0: set dynamics.schedule=constant"
    if isinstance(data, SnapshotsConfig) and data.counts and dynamics.kind != "unbalanced":
        yield f"data.counts lets the total mass change, which dynamics.kind={dynamics.kind} cannot follow: set dynamics.kind=unbalanced"
    if data.weighted and dynamics.kind != "unbalanced" and conditional:
        yield (
            f"masses that move are not followed by dynamics.kind={dynamics.kind} in conditional form: set dynamics.kind=unbalanced, or "
            "loss.form=marginal"
        )


def _solver_mismatches(config: "Config") -> Iterator[str]:
    """Yield what is wrong with the solver for the dynamics."""
    sampling, dynamics = config.sampling, config.dynamics
    solver, noisy, level = sampling.solver, sampling.solver in SDE_SOLVERS, sampling.noise_level
    if dynamics.kind == "entropic":
        if level:
            yield f"sampling.noise_level={level}: entropic dynamics have their own noise: leave it at 0"
        if not noisy:
            yield f"sampling.solver={solver} solves ODEs, and entropic dynamics is an SDE: choose one of {', '.join(SDE_SOLVERS)}"
        return
    if level and dynamics.kind != "balanced":
        yield f"sampling.noise_level={level} is for balanced dynamics, not dynamics.kind={dynamics.kind}: leave it at 0"
    if level and config.path.kind == "torus":
        yield f"sampling.noise_level={level} needs a path that is Gaussian given the data, which the torus is not: leave it at 0"
    if level and config.path.kind == "snapshots":
        yield f"sampling.noise_level={level} needs a path that starts from noise, which path.kind=snapshots does not: leave it at 0"
    if level and config.coupling.kind == "ot":
        yield (
            f"sampling.noise_level={level} needs noise that is independent of the data, which coupling.kind=ot undoes: leave it at 0, or "
            "train with coupling.kind=independent"
        )
    if noisy and not level:
        yield (
            f"sampling.solver={solver} needs noise: give a sampling.noise_level (--noise-level 1), or choose one of "
            f"{', '.join(ODE_SOLVERS)}"
        )
    if level and not noisy:
        yield f"sampling.noise_level={level} makes an SDE: choose one of the solvers {', '.join(SDE_SOLVERS)}"
