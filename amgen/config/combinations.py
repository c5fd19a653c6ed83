"""Checks that the sections of a configuration fit together. Each message says what to do instead."""

from collections.abc import Iterator

from amgen.config.data import DataConfig, SimulatedConfig, SnapshotsConfig
from amgen.config.options import Options
from amgen.config.parts import (
    ActionConfig,
    ColourisationPathConfig,
    InPaintingPathConfig,
    MarginalLossConfig,
    QuadratureTimesConfig,
    SnapshotsPathConfig,
    SuperResolutionPathConfig,
    WFRPathConfig,
)
from amgen.core.names import ODE_SOLVERS, SDE_SOLVERS, VP_TRACE


def mismatches(config: Options) -> Iterator[str]:
    """Yield a message for each combination of options that does not work: the options, the reason, and what to do instead."""
    dynamics, loss = config.dynamics, config.loss
    if isinstance(config.data, DataConfig) and isinstance(config.action, ActionConfig):
        yield from _unet_mismatches(config.data, config.action)
    if config.evaluation.every and config.data.kind != "images":
        yield f"evaluation.every={config.evaluation.every} is for images, not for the points of data.kind={config.data.kind}: leave it at 0"
    if config.evaluation.metrics == ("nearest",):
        yield "evaluation.metrics=[nearest] cannot decide which weights are best: add another metric, such as fid"
    if isinstance(loss, MarginalLossConfig) and loss.probes != 1 and dynamics.kind != "entropic":
        yield f"loss.probes={loss.probes} is for the Laplacian of entropic dynamics, not for dynamics.kind={dynamics.kind}: leave it out"
    if config.times.kind == "quadrature" and isinstance(loss, MarginalLossConfig) and loss.boundaries == "independent":
        yield (
            "times.kind=quadrature lets the boundary terms of each pair cancel its interior, which loss.boundaries=independent prevents: "
            "set loss.boundaries=paired, or times.kind=stratified"
        )
    if isinstance(loss, MarginalLossConfig) and loss.cells:
        if loss.boundaries == "independent":
            yield (
                f"loss.cells={loss.cells} takes the boundary terms on the path of each sample, not of others (boundaries=independent): "
                "set loss.boundaries=paired, or loss.cells=0"
            )
        if isinstance(config.times, QuadratureTimesConfig) and config.times.rule != "antithetic":
            yield (
                f"times.rule={config.times.rule} has weights that do not sum to the lengths of the cells (loss.cells={loss.cells}): set "
                "times.kind=stratified, times.rule=antithetic, or loss.cells=0"
            )
    yield from _solver_mismatches(config)
    if config.sampling.guidance != 1 and not config.action.label_dropout:
        yield (
            f"sampling.guidance={config.sampling.guidance} needs a model that was also trained without classes: "
            "train with action.label_dropout=0.1"
        )
    if isinstance(config.data, DataConfig):
        yield from _image_mismatches(config, config.data)
    else:
        yield from _population_mismatches(config, config.data)


def _unet_mismatches(data: DataConfig, action: ActionConfig) -> Iterator[str]:
    """Yield a message for each option of the U-Net that does not fit the size of the images."""
    halvings = len(action.multipliers) - 1
    if data.size % 2**halvings:
        yield (
            f"data.size={data.size} cannot be halved {halvings} times, once for each of action.multipliers after the first: "
            f"choose a multiple of {2**halvings}, or fewer multipliers"
        )
    resolutions = [data.size // 2**level for level in range(halvings + 1)]
    for resolution in action.attention:
        if resolution not in resolutions:
            yield f"action.attention={resolution} is not a resolution of the network: choose among {resolutions}"


def _image_mismatches(config: Options, data: DataConfig) -> Iterator[str]:
    """Yield a message for each combination of options that does not work for images."""
    path, dynamics, loss, coupling = config.path, config.dynamics, config.loss, config.coupling
    conditional = loss.form == "conditional"
    if path.kind in ("snapshots", "wfr") or config.action.kind == "mlp":
        yield f"path.kind={path.kind}, action.kind={config.action.kind}: snapshots, wfr and mlp are for points: set data.kind=snapshots"
    if coupling.kind == "wfr":
        yield "coupling.kind=wfr pairs the snapshots of a population, not noise with images: set coupling.kind=ot"
    if dynamics.kind == "unbalanced" and dynamics.delta == "auto":
        yield "dynamics.delta=auto is measured from the snapshots of a population, not from images: set dynamics.rate"
    if isinstance(path, ColourisationPathConfig) and data.channels != 3:
        yield f"path.kind=colourisation needs colours, not data.channels={data.channels}: set data.channels=3"
    if isinstance(path, ColourisationPathConfig) and path.schedule == "vp" and path.noise < 10 * VP_TRACE:
        yield (
            f"path.schedule=vp leaves {VP_TRACE} of the colours at t = 0, which path.noise={path.noise} does not hide: set path.noise to "
            f"{10 * VP_TRACE:g} or more, or path.schedule=linear"
        )
    if isinstance(path, SuperResolutionPathConfig) and path.factor > data.size:
        yield f"path.factor={path.factor} leaves one pixel of data.size={data.size}: choose a smaller factor"
    if isinstance(path, InPaintingPathConfig) and path.mask is not None:
        size = data.size
        if len(path.mask) != size or any(len(row) != size for row in path.mask):
            yield f"path.mask has {len(path.mask)} rows of {len(path.mask[0])}: expected {size} rows of data.size={size}"
        if not any("x" in row for row in path.mask):
            yield "path.mask marks no pixels: mark those to generate with x (in an image file: with a light gray level)"
    if coupling.kind == "ot":
        if path.kind not in ("linear", "vp", "trigonometric"):
            yield (
                "coupling.kind=ot is for paths that start from normal noise alone (linear, vp, trigonometric), not for "
                f"path.kind={path.kind}, whose noise must be independent of the image: set coupling.kind=independent"
            )
        if data.masses is not None and data.masses.start is not None:
            yield (
                "coupling.kind=ot is not for data.masses.start: noise paired with heavier images would not be standard normal: "
                "set coupling.kind=independent, or data.masses.start=null"
            )
    if dynamics.kind == "entropic" and conditional:
        if path.kind == "torus":
            yield (
                "dynamics.kind=entropic with loss.form=conditional needs x_t to be Gaussian given its ends, which path.kind=torus is not: "
                "set loss.form=marginal"
            )
        if coupling.kind == "ot":
            yield (
                "dynamics.kind=entropic with loss.form=conditional needs noise that is Gaussian given the image, which it is not with "
                "coupling.kind=ot: set coupling.kind=independent, or loss.form=marginal"
            )
        if dynamics.schedule == "constant" and loss.weight == "constant":
            yield (
                "dynamics.schedule=constant with loss.form=conditional has a target that grows as 1/a_t towards the data, with unbounded "
                "variance: set dynamics.schedule to 1-t or sqrt(a), loss.weight=1-t, or loss.form=marginal"
            )
    if dynamics.kind == "entropic" and dynamics.schedule == "sqrt(a)" and path.kind == "torus":
        yield (
            "dynamics.schedule=sqrt(a) needs the noise scale a_t of a Gaussian path, which path.kind=torus does not have: "
            "set dynamics.schedule=1-t"
        )
    if data.masses is not None and dynamics.kind != "unbalanced":
        yield f"data.masses change in time, which dynamics.kind={dynamics.kind} cannot model: set dynamics.kind=unbalanced"
    if dynamics.kind == "unbalanced" and config.action.classes:
        yield (
            f"dynamics.kind=unbalanced moves mass between classes, so the action cannot be conditioned on one "
            f"(action.classes={config.action.classes}): set action.classes=0"
        )


def _population_mismatches(config: Options, data: SnapshotsConfig | SimulatedConfig) -> Iterator[str]:
    """Yield a message for each combination of options that does not work for a population of points."""
    path, dynamics, conditional = config.path, config.dynamics, config.loss.form == "conditional"
    if not isinstance(path, SnapshotsPathConfig | WFRPathConfig) or config.action.kind != "mlp":
        yield (
            f"path.kind={path.kind}, action.kind={config.action.kind} are for images: set path.kind=snapshots (or wfr) and action.kind=mlp "
            f"for data.kind={data.kind}"
        )
        return
    if config.coupling.kind != "independent" and data.paired:
        yield f"coupling.kind={config.coupling.kind} would separate the rows of a particle (data.paired): set coupling.kind=independent"
    if (path.kind == "wfr") != (config.coupling.kind == "wfr"):
        yield (
            f"path.kind={path.kind} and coupling.kind={config.coupling.kind} do not go together: geodesics need the pairs of a plan: "
            "set both to wfr, or none"
        )
    if path.kind == "wfr" and data.period is not None:
        yield f"path.kind=wfr is not for points on a torus (data.period={data.period:g}): set path.kind=snapshots and coupling.kind=ot"
    if path.kind == "wfr" and data.weighted and dynamics.kind != "unbalanced":
        yield (
            f"path.kind=wfr with masses that change needs growth, which dynamics.kind={dynamics.kind} has not: "
            "set dynamics.kind=unbalanced, or path.kind=snapshots"
        )
    if dynamics.kind == "entropic" and not path.noise:
        if conditional:
            yield "dynamics.kind=entropic with loss.form=conditional needs path.noise above 0, for the score: set it, or loss.form=marginal"
        elif dynamics.schedule == "sqrt(a)":
            yield "dynamics.schedule=sqrt(a) needs path.noise above 0: set dynamics.schedule=constant"
    if isinstance(data, SnapshotsConfig) and data.mass_from_counts and dynamics.kind != "unbalanced":
        yield (
            f"data.mass_from_counts lets the total mass change, which dynamics.kind={dynamics.kind} cannot model: "
            "set dynamics.kind=unbalanced"
        )
    if data.weighted and dynamics.kind != "unbalanced" and conditional:
        yield (
            f"masses that change in time cannot be modelled by dynamics.kind={dynamics.kind} with loss.form=conditional: "
            "set dynamics.kind=unbalanced, or loss.form=marginal"
        )


def _solver_mismatches(config: Options) -> Iterator[str]:
    """Yield a message if the solver or the noise level does not fit the dynamics or the path."""
    sampling, dynamics = config.sampling, config.dynamics
    solver, noisy, level = sampling.solver, sampling.solver in SDE_SOLVERS, sampling.noise_level
    if dynamics.kind == "entropic":
        if level:
            yield f"sampling.noise_level={level}: entropic dynamics have noise of their own (dynamics.sigma): leave it at 0"
        if not noisy:
            yield f"sampling.solver={solver} solves ODEs, and entropic dynamics are an SDE: choose one of {', '.join(SDE_SOLVERS)}"
        return
    if level and dynamics.kind != "balanced":
        yield f"sampling.noise_level={level} is for balanced dynamics, not dynamics.kind={dynamics.kind}: leave it at 0"
    if level and config.path.kind == "torus":
        yield f"sampling.noise_level={level} needs a path that is Gaussian given the data, which path.kind=torus is not: leave it at 0"
    if level and config.path.kind in ("snapshots", "wfr"):
        yield f"sampling.noise_level={level} needs a path that starts from noise, unlike path.kind={config.path.kind}: leave it at 0"
    if level and config.coupling.kind == "ot":
        yield (
            f"sampling.noise_level={level} needs noise that is independent of the data, which it is not with coupling.kind=ot: "
            "leave it at 0, or train with coupling.kind=independent"
        )
    if noisy and not level:
        yield (
            f"sampling.solver={solver} solves SDEs, and sampling.noise_level is 0: set it (--noise-level 1), or choose one of "
            f"{', '.join(ODE_SOLVERS)}"
        )
    if level and not noisy:
        yield (
            f"sampling.noise_level={level} makes the dynamics an SDE, and sampling.solver={solver} solves ODEs: "
            f"choose one of {', '.join(SDE_SOLVERS)}"
        )
