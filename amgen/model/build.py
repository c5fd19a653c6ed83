"""From a configuration to the parts it describes."""

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
    SimulatedConfig,
    SnapshotsConfig,
    SnapshotsPathConfig,
    SuperResolutionPathConfig,
    TorusPathConfig,
    TrigonometricPathConfig,
    UnbalancedConfig,
    UniformTimesConfig,
    VPPathConfig,
)
from amgen.core.errors import UserError
from amgen.core.randomness import Purpose, derive_seed
from amgen.dynamics import Balanced, ConvexCost, DynamicsType, Entropic, Unbalanced
from amgen.losses import TIME_WEIGHTS, ActionMatchingLoss, ConditionalLoss, MarginalLoss, TimeWeight
from amgen.paths import (
    AdaptiveTimes,
    ColourisationPath,
    Coupling,
    HeatPath,
    IndependentCoupling,
    InPaintingPath,
    LinearPath,
    Masses,
    OptimalTransportCoupling,
    Path,
    SnapshotPath,
    StratifiedTimes,
    SuperResolutionPath,
    TimeSampler,
    TorusPath,
    TrigonometricPath,
    UniformTimes,
    VPPath,
    make_schedule,
)


def build_action(config: Config) -> Action:
    """Build the action network; its initial weights are a function of the configuration's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.seed, Purpose.INITIAL_WEIGHTS, 0))
        if isinstance(config.action, MLPConfig):
            return _build_mlp(config, config.action)
        return _build_unet(config, config.action)


def _build_unet(config: Config, options: ActionConfig) -> Action:
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
    if options.head == "pooled":
        return PooledAction(body, body.features, offset, period)
    return {"dot": DotAction, "square": SquareAction}[options.head](body, offset, period)


def _build_mlp(config: Config, options: MLPConfig) -> Action:
    data = _population(config)
    body = MLP(
        dimension=data.dimension if data.period is None else 2 * data.dimension,
        width=options.width,
        depth=options.depth,
        time_frequency=options.time_frequency,
        time_features=options.time_features,
        gain=options.gain,
        features_only=options.head == "linear",
    )
    offset = _build_offset(config)
    if options.head == "linear":
        return PooledAction(body, options.width, offset, data.period)
    return {"dot": DotAction, "square": SquareAction}[options.head](body, offset, data.period)


def _build_offset(config: Config) -> TimeOffset | None:
    return TimeOffset(config.action.time_frequency) if config.dynamics.kind == "unbalanced" else None


def _population(config: Config) -> SnapshotsConfig | SimulatedConfig:
    """Return the section `data` of a run on points."""
    assert isinstance(config.data, SnapshotsConfig | SimulatedConfig)  # others are refused with the configuration
    return config.data


def no_label(config: Config) -> int | None:
    """Return the label that stands for no class, or None if the action is never trained without one."""
    return config.action.classes if config.action.label_dropout else None


def build_path(config: Config) -> Path:
    """Build the path between noise and data."""
    options = config.path
    if isinstance(options, VPPathConfig):
        return VPPath(options.beta_min, options.beta_max)
    if isinstance(options, TrigonometricPathConfig):
        return TrigonometricPath()
    if isinstance(options, SuperResolutionPathConfig):
        return SuperResolutionPath(options.factor, make_schedule(options.schedule))
    if isinstance(options, InPaintingPathConfig):
        mask = None if options.mask is None else torch.tensor([[pixel == "x" for pixel in row] for row in options.mask])
        return InPaintingPath(options.region, mask, make_schedule(options.schedule))
    if isinstance(options, ColourisationPathConfig):
        return ColourisationPath(options.noise, make_schedule(options.schedule))
    if isinstance(options, HeatPathConfig):
        return HeatPath(options.blur, options.noise)
    if isinstance(options, TorusPathConfig):
        return TorusPath()
    if isinstance(options, SnapshotsPathConfig):
        return _build_snapshot_path(options, _population(config))
    return LinearPath()


def _build_snapshot_path(options: SnapshotsPathConfig, data: SnapshotsConfig | SimulatedConfig) -> SnapshotPath:
    if data.times is None:
        raise UserError("data.times are not known yet: they are recorded when a run is trained (amgen.data's `record`)")
    return SnapshotPath(data.times, options.noise, data.weighted, data.period)


def build_coupling(config: Config) -> Coupling:
    """Build the rule that joins noise with data, or points of neighbouring times."""
    options = config.coupling
    if not isinstance(options, OptimalTransportCouplingConfig):
        return IndependentCoupling()
    return OptimalTransportCoupling(options.group, None if isinstance(config.data, DataConfig) else config.data.period)


def build_times(config: Config) -> TimeSampler:
    """Build the sampler of times."""
    options = config.times
    if isinstance(options, AdaptiveTimesConfig):
        memory = options.memory if options.memory < 1 else 0.5 ** (config.training.batch_size / options.memory)
        return AdaptiveTimes(options.bins, memory, options.floor)
    return UniformTimes() if isinstance(options, UniformTimesConfig) else StratifiedTimes()


def build_dynamics(config: Config, path: Path) -> DynamicsType:
    """Build the kind of dynamics."""
    options = config.dynamics
    if isinstance(options, EntropicConfig):
        return Entropic(_sigma(options, path))
    if isinstance(options, UnbalancedConfig):
        return Unbalanced(options.rate)
    return ConvexCost(options.power) if isinstance(options, ConvexConfig) else Balanced()


def _sigma(options: EntropicConfig, path: Path) -> Callable[[Tensor], Tensor]:
    """Return sigma(t)."""

    def scale(t: Tensor) -> Tensor:
        if options.schedule == "constant":
            return torch.ones_like(t)
        if options.schedule == "1-t":
            return 1 - t
        noise_scale = path.noise_scale(t)
        assert noise_scale is not None  # refused with the configuration
        return noise_scale.sqrt()

    return lambda t: options.sigma * scale(t)


def build_masses(config: Config, shares: list[int]) -> Masses | None:
    """Build the masses of images of which `shares[c]` are of class c, or None where they do not change.

    Raises:
        UserError: if the classes of the data are not those of the masses.
    """
    options = config.data.masses
    if options is None:
        return None
    if len(shares) < 2:
        raise UserError("data.masses needs images of several classes: give them in one folder a class")
    return Masses(shares, options.start, options.end, options.interpolation)


def build_loss(config: Config, action: Action, path: Path) -> ActionMatchingLoss:
    """Build the objective around an action."""
    form = MarginalLoss if isinstance(config.loss, MarginalLossConfig) else ConditionalLoss
    return form(action, path, build_dynamics(config, path), TimeWeight(TIME_WEIGHTS[config.loss.weight]))


def laplacian_probes(config: Config) -> int:
    """Return how many probes the loss needs with each sample."""
    needed = isinstance(config.loss, MarginalLossConfig) and config.dynamics.kind == "entropic"
    return config.loss.probes if needed and isinstance(config.loss, MarginalLossConfig) else 0
