"""Frozen views: the same weights, another mode."""

from types import MethodType

import torch

from amgen.actions import frozen_view


class Tied(torch.nn.Module):
    """A layer that is used under two names, one weight in two places, running statistics and an absent bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(3, 3)
        self.again = self.first
        self.second = torch.nn.Linear(3, 3, bias=False)
        self.second.weight = self.first.weight
        self.norm = torch.nn.BatchNorm1d(3)
        self.log: list[bool] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.log.append(self.training)
        return self.norm(self.second(self.again(self.first(x))))


def test_a_view_shares_weights_and_nothing_of_the_mode() -> None:
    network = Tied()
    network.first.bias.requires_grad_(False)
    names = list(network.state_dict())
    view = frozen_view(network)
    assert list(view.state_dict()) == names
    assert view.first is view.again
    assert view.first.weight is view.second.weight
    assert not any(module.training for module in view.modules())
    assert not any(parameter.requires_grad for parameter in view.parameters())
    assert all(module.training for module in network.modules())
    assert [parameter.requires_grad for parameter in network.parameters()] == [True, False, True, True]
    for name, value in network.state_dict().items():
        assert view.state_dict()[name].data_ptr() == value.data_ptr()


def test_a_view_evaluates_as_in_eval_mode_and_leaves_statistics_alone() -> None:
    network, x = Tied(), torch.randn(8, 3)
    view, statistics = frozen_view(network), network.norm.running_mean.clone()
    value = view(x)
    assert not value.requires_grad
    assert torch.equal(network.norm.running_mean, statistics)
    assert torch.equal(value, network.eval()(x))
    assert network.log == [False, False]  # attributes that are no modules, parameters or buffers are shared
    network.train()(x)
    assert torch.equal(view.norm.running_mean, network.norm.running_mean)
    assert not torch.equal(network.norm.running_mean, statistics)


def test_modes_are_independent_afterwards() -> None:
    network = Tied()
    view = frozen_view(network)
    view.train()
    network.eval()
    assert view.norm.training
    assert not network.norm.training


def test_a_view_of_a_compiled_network_is_in_eval_mode() -> None:
    network, x = Tied(), torch.randn(8, 3)
    expected = frozen_view(network)(x)
    network.compile(backend="eager")
    assert torch.equal(frozen_view(network)(x), expected)
    assert network.log == [False, False]
    assert network._compiled_call_impl is not None


def test_methods_set_on_a_network_are_those_of_the_view() -> None:
    network, x = Tied(), torch.randn(8, 3)
    expected = frozen_view(network)(x)
    network.forward = MethodType(Tied.forward, network)  # as accelerate does for mixed precision
    assert torch.equal(frozen_view(network)(x), expected)
    assert network.log == [False, False]
