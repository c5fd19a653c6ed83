"""Build the parts of a model from its configuration: one function for each section."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from amgen.actions import MLP, Action, DotAction, PooledAction, SquareAction, TimeOffset, UNet
from amgen.config import (
    ActionConfig,
    AdaptiveTimesConfig,
    ColourisationPathConfig,
    Config,
    ConvexConfig,
    DataConfig,
    EntropicConfig,
    HeatPathConfig,
    InPaintingPathConfig,
    MarginalLossConfig,
    MLPConfig,
    OptimalTransportCouplingConfig,
    QuadratureTimesConfig,
    SimulatedConfig,
    SnapshotsConfig,
    SnapshotsPathConfig,
    SuperResolutionPathConfig,
    TorusPathConfig,
    TrigonometricPathConfig,
    UnbalancedConfig,
    UniformTimesConfig,
    VPPathConfig,
    WFRPathConfig,
)
from amgen.core.errors import UserError
from amgen.core.randomness import Purpose, derive_seed
from amgen.dynamics import Balanced, ConvexCost, DynamicsType, Entropic, Unbalanced
from amgen.losses import TIME_WEIGHTS, ActionMatchingLoss, ConditionalLoss, MarginalLoss, TimeWeight
from amgen.paths import (
    AdaptiveTimes,
    Cells,
    ColourisationPath,
    Coupling,
    HeatPath,
    IndependentCoupling,
    InPaintingPath,
    LinearPath,
    Masses,
    OptimalTransportCoupling,
    Path,
    QuadratureTimes,
    SnapshotPath,
    StratifiedTimes,
    SuperResolutionPath,
    TimeSampler,
    TorusPath,
    TrigonometricPath,
    UniformTimes,
    VPPath,
    WFRPath,
    make_schedule,
)

HEADS = {"dot": DotAction, "square": SquareAction}
"""Heads that need no options."""


def build_action(config: Config) -> Action:
    """Return the action network; its initial weights are a function of `config.seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.seed, Purpose.INITIAL_WEIGHTS, 0))
        if isinstance(config.action, MLPConfig):
            return _build_mlp(config, config.action)
        return _build_unet(config, config.action)


def _build_unet(config: Config, options: ActionConfig) -> Action:
    """Return an action of images."""
    path, data = build_path(config), config.images
    period = path.PERIOD if isinstance(path, TorusPath) else None
    channels = data.channels if period is None else 2 * data.channels
    body = UNet(
        channels=channels,
        size=data.size,
        width=options.width,
        multipliers=options.multipliers,
        blocks=options.blocks,
        attention=options.attention,
        attention_heads=options.attention_heads,
        dropout=options.dropout,
        time_frequency=options.time_frequency,
        classes=options.classes + (no_label(config) is not None),
        condition_channels=path.condition_channels(data.channels),
        out_channels=None if options.head == "pooled" else channels,
        checkpoint=config.training.checkpoint_activations,
    )
    offset = _build_offset(config)
    return PooledAction(body, body.features, offset, period) if options.head == "pooled" else HEADS[options.head](body, offset, period)


def _build_mlp(config: Config, options: MLPConfig) -> Action:
    """Return an action of points."""
    data = _points(config)
    body = MLP(
        dimension=data.dimension if data.period is None else 2 * data.dimension,
        width=options.width,
        depth=options.depth,
        time_frequency=options.time_frequency,
        time_features=options.time_features,
        gain=options.gain,
        features_only=options.head == "linear",
    )
    offset, period = _build_offset(config), data.period
    return PooledAction(body, options.width, offset, period) if options.head == "linear" else HEADS[options.head](body, offset, period)


def _build_offset(config: Config) -> TimeOffset | None:
    """Return the function of time that unbalanced dynamics add to the action; None for other dynamics."""
    return TimeOffset(config.action.time_frequency) if config.dynamics.kind == "unbalanced" else None


def _points(config: Config) -> SnapshotsConfig | SimulatedConfig:
    """Return the section `data` of a run on points."""
    assert isinstance(config.data, SnapshotsConfig | SimulatedConfig)  # the configuration allows no other section
    return config.data


def no_label(config: Config) -> int | None:
    """Return the label that stands for no class, or None if the action is never trained without a class."""
    return config.action.classes if config.action.label_dropout else None


def build_path(config: Config) -> Path:
    """Return the path between noise and data, or between snapshots.

    Raises:
        UserError: for snapshots without the times that training records.
    """
    match config.path:
        case VPPathConfig() as options:
            return VPPath(options.beta_min, options.beta_max)
        case TrigonometricPathConfig():
            return TrigonometricPath()
        case SuperResolutionPathConfig() as options:
            return SuperResolutionPath(options.factor, make_schedule(options.schedule))
        case InPaintingPathConfig() as options:
            mask = None if options.mask is None else torch.tensor([[pixel == "x" for pixel in row] for row in options.mask])
            return InPaintingPath(options.region, mask, make_schedule(options.schedule))
        case ColourisationPathConfig() as options:
            return ColourisationPath(options.noise, make_schedule(options.schedule))
        case HeatPathConfig() as options:
            return HeatPath(options.blur, options.noise)
        case TorusPathConfig():
            return TorusPath()
        case SnapshotsPathConfig() as options:
            data = _points(config)
            return SnapshotPath(_known_times(config), options.noise, data.weighted, data.period)
        case WFRPathConfig() as options:
            return WFRPath(_known_times(config), growth_scale_of(config), options.noise, isinstance(config.dynamics, UnbalancedConfig))
        case _:
            return LinearPath()


def _known_times(config: Config) -> list[float]:
    """Return the times of the snapshots, which training records."""
    times = _points(config).times
    if times is None:
        raise UserError("data.times are not known yet: they are recorded when a run is trained (amgen.data's `record`)")
    return times


def growth_scale_of(config: Config) -> float:
    """Return the length scale of growth, 1 / sqrt(lambda); infinite for dynamics without growth."""
    return config.dynamics.growth_rate**-0.5 if isinstance(config.dynamics, UnbalancedConfig) else math.inf


def build_coupling(config: Config) -> Coupling:
    """Return the rule that pairs noise with data, or the points of neighbouring times."""
    options = config.coupling
    if not isinstance(options, OptimalTransportCouplingConfig):
        return IndependentCoupling()
    return OptimalTransportCoupling(options.group, None if isinstance(config.data, DataConfig) else config.data.period)


def build_times(config: Config) -> TimeSampler:
    """Return the sampler of training times.

    Raises:
        UserError: if a batch is smaller than the nodes of one pair.
    """
    match config.times:
        case AdaptiveTimesConfig() as options:
            memory = options.memory if options.memory < 1 else 0.5 ** (config.training.batch_size / options.memory)
            return AdaptiveTimes(options.bins, memory, options.floor)
        case QuadratureTimesConfig() as options:
            times = QuadratureTimes(options.rule, options.nodes, _breaks(build_path(config)))
            if times.group > config.training.batch_size:
                raise UserError(
                    f"training.batch_size={config.training.batch_size} is less than the {times.group} nodes of a pair (times.nodes="
                    f"{options.nodes}): raise it, or lower times.nodes"
                )
            return times
        case UniformTimesConfig():
            return UniformTimes()
        case _:
            return StratifiedTimes()


def build_cells(config: Config, path: Path) -> Cells | None:
    """Return the cells of times at whose ends the marginal form has its boundary terms; None for t = 0 and t = 1."""
    loss = config.loss
    return Cells(loss.cells, _breaks(path)) if isinstance(loss, MarginalLossConfig) and loss.cells else None


def _breaks(path: Path) -> list[float]:
    """Return the times, from 0 to 1, where a path may have kinks: those of the snapshots of a population."""
    return path.times.tolist() if isinstance(path, SnapshotPath) else [0.0, 1.0]


def build_dynamics(config: Config, path: Path) -> DynamicsType:
    """Return the type of the dynamics."""
    match config.dynamics:
        case EntropicConfig() as options:
            return Entropic(_sigma(options, path))
        case UnbalancedConfig() as options:
            return Unbalanced(options.growth_rate)
        case ConvexConfig() as options:
            return ConvexCost(options.power)
        case _:
            return Balanced()


def _sigma(options: EntropicConfig, path: Path) -> Callable[[Tensor], Tensor]:
    """Return the function sigma(t) of entropic dynamics."""

    def scale(t: Tensor) -> Tensor:
        if options.schedule == "constant":
            return torch.ones_like(t)
        if options.schedule == "1-t":
            return 1 - t
        noise_scale = path.noise_scale(t)
        assert noise_scale is not None  # the configuration refuses such a path
        return noise_scale.sqrt()

    return lambda t: options.sigma * scale(t)


def build_masses(config: Config, shares: list[int]) -> Masses | None:
    """Return the masses of the classes over time, or None if the masses do not change.

    Args:
        config: the configuration.
        shares: number of training images of each class.

    Raises:
        UserError: if the images have no classes, or others than the masses.
    """
    options = config.data.masses
    if options is None:
        return None
    if len(shares) < 2:
        raise UserError("data.masses needs images of several classes: give them in one folder a class")
    return Masses(shares, options.start, options.end, options.interpolation)


def build_loss(config: Config, action: Action, path: Path) -> ActionMatchingLoss:
    """Return the loss of an action."""
    form = MarginalLoss if isinstance(config.loss, MarginalLossConfig) else ConditionalLoss
    return form(action, path, build_dynamics(config, path), TimeWeight(TIME_WEIGHTS[config.loss.weight]))


def laplacian_probes(config: Config) -> int:
    """Return the number of random signs that the loss needs for each sample, to estimate a Laplacian."""
    entropic = config.dynamics.kind == "entropic"
    return config.loss.probes if entropic and isinstance(config.loss, MarginalLossConfig) else 0
