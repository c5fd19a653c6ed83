"""The section `dynamics`: how the action moves samples, and whether it gives them mass."""

from typing import Annotated, Any, Literal

from pydantic import Field, Tag, model_validator

from amgen.config.base import Section, by
from amgen.core.errors import UserError
from amgen.core.names import GROWTH_RATE


class BalancedConfig(Section):
    """dx/dt = grad s."""

    kind: Literal["balanced"] = Field("balanced", description="Action Matching: samples follow the velocity grad s.")


class EntropicConfig(Section):
    """dx = grad s dt + sigma(t) dW."""

    kind: Literal["entropic"] = Field("entropic", description="Entropic Action Matching: an SDE with drift grad s and noise sigma(t).")
    sigma: float = Field(1.0, gt=0, description="Scale of the noise.")
    schedule: Literal["constant", "1-t", "sqrt(a)"] = Field(
        "sqrt(a)", description="sigma(t): sigma, sigma (1 - t), or sigma sqrt(a_t) with a_t the noise scale of the path."
    )


class UnbalancedConfig(Section):
    """dx/dt = grad s, d(log weight)/dt = rate s."""

    kind: Literal["unbalanced"] = Field("unbalanced", description="Unbalanced Action Matching: samples also gain and lose mass.")
    rate: float | None = Field(
        None, gt=0, description="lambda, the growth rate per unit of s. A small one makes growth costly and motion cheap. Default: 0.01."
    )
    delta: Annotated[float, Field(gt=0)] | Literal["auto"] | None = Field(
        None,
        description="In place of rate: the length scale of growth, 1 / sqrt(rate), in standardized coordinates; nothing moves farther than "
        "pi delta on path.kind=wfr. auto: measured when training starts, and recorded.",
    )

    @model_validator(mode="before")
    @classmethod
    def _one_of_rate_and_delta(cls, options: Any) -> Any:
        given = [name for name in ("rate", "delta") if isinstance(options, dict) and options.get(name) is not None]
        if len(given) == 2:
            raise ValueError("dynamics.rate and dynamics.delta both say how much growth costs: leave one out, or set it to null")
        return options if given or not isinstance(options, dict) else {**options, "rate": GROWTH_RATE}

    @property
    def growth_rate(self) -> float:
        """lambda.

        Raises:
            UserError: if delta is `auto`, which training replaces.
        """
        if self.delta == "auto":
            raise UserError("dynamics.delta=auto is measured from the data when training starts: give a number here")
        if self.delta is not None:
            return self.delta**-2
        assert self.rate is not None  # one of the two is always given
        return self.rate


class ConvexConfig(Section):
    """dx/dt = grad c*(grad s)."""

    kind: Literal["convex"] = Field("convex", description="Action Matching for the transport cost |v|^p / p.")
    power: float = Field(2.0, gt=1, description="p of the cost; 2 is Action Matching.")


DynamicsConfig = Annotated[
    Annotated[BalancedConfig, Tag("balanced")]
    | Annotated[EntropicConfig, Tag("entropic")]
    | Annotated[UnbalancedConfig, Tag("unbalanced")]
    | Annotated[ConvexConfig, Tag("convex")],
    by("kind", "balanced"),
]
