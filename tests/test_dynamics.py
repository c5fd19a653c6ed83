import torch
from helpers import small_action

from amgen.dynamics import Dynamics


def test_velocity_is_the_gradient_of_the_action(device: torch.device, dtype: torch.dtype) -> None:
    action = small_action(3, dtype, device)
    x, t = torch.randn(5, 3, dtype=dtype, device=device), torch.rand(5, dtype=dtype, device=device)
    point = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(action(t, point).sum(), point)
    torch.testing.assert_close(Dynamics(action).velocity(t, x), expected)


def test_a_single_time_serves_the_whole_batch(dtype: torch.dtype) -> None:
    dynamics = Dynamics(small_action(3, dtype))
    x = torch.randn(5, 3, dtype=dtype)
    torch.testing.assert_close(dynamics.velocity(0.3, x), dynamics.velocity(torch.full((5,), 0.3, dtype=dtype), x))


def test_no_graph_is_left_and_evaluations_are_counted(dtype: torch.dtype) -> None:
    action = small_action(3, dtype)
    dynamics = Dynamics(action)
    for _ in range(3):
        velocity = dynamics.velocity(0.5, torch.randn(2, 3, dtype=dtype))
    assert not velocity.requires_grad
    assert velocity.grad_fn is None
    assert not any(parameter.requires_grad for parameter in action.parameters())
    assert dynamics.evaluations == 3
