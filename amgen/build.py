"""From a configuration to the parts it describes."""

import torch

from amgen.actions import Action, DotAction, PooledAction, SquareAction, UNet
from amgen.config import Config
from amgen.losses import TIME_WEIGHTS, ActionMatchingLoss, ConditionalLoss, MarginalLoss, TimeWeight
from amgen.paths import Coupling, IndependentCoupling, LinearPath, OptimalTransportCoupling, Path
from amgen.randomness import Purpose, derive_seed


def build_action(config: Config) -> Action:
    """Build the action network; its initial weights are a function of the configuration's seed."""
    options = config.action
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.seed, Purpose.INITIAL_WEIGHTS, 0))
        body = UNet(
            channels=config.data.channels,
            size=config.data.size,
            width=options.width,
            multipliers=options.multipliers,
            blocks=options.blocks,
            attention=options.attention,
            attention_heads=options.attention_heads,
            dropout=options.dropout,
            time_frequency=options.time_frequency,
            classes=options.classes,
            out_channels=None if options.head == "pooled" else config.data.channels,
        )
        if options.head == "pooled":
            return PooledAction(body, body.features)
        return {"dot": DotAction, "square": SquareAction}[options.head](body)


def build_path(config: Config) -> Path:
    """Build the path between noise and data."""
    return {"linear": LinearPath}[config.path.kind]()


def build_coupling(config: Config) -> Coupling:
    """Build the rule that joins noise with data."""
    return OptimalTransportCoupling(config.coupling.group) if config.coupling.kind == "ot" else IndependentCoupling()


def build_loss(config: Config, action: Action) -> ActionMatchingLoss:
    """Build the objective around an action."""
    form = {"conditional": ConditionalLoss, "marginal": MarginalLoss}[config.loss.form]
    return form(action, TimeWeight(TIME_WEIGHTS[config.loss.weight]))
