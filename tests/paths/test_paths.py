import pytest
import torch

from amgen.paths import LinearPath, stratified_times


def test_linear_path_starts_at_noise_and_ends_at_data(dtype: torch.dtype) -> None:
    x_0, x_1 = torch.randn(2, 4, 3, 8, 8, dtype=dtype)
    path = LinearPath()
    assert torch.equal(path.sample(torch.zeros(4, dtype=dtype), x_0, x_1).x, x_0)
    assert torch.equal(path.sample(torch.ones(4, dtype=dtype), x_0, x_1).x, x_1)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")  # from inside torch.func.jvp
def test_velocity_is_the_derivative_of_the_path(dtype: torch.dtype, device: torch.device) -> None:
    """Against forward-mode differentiation of x_t in t."""
    x_0, x_1 = torch.randn(2, 4, 3, dtype=dtype, device=device)
    t = torch.rand(4, dtype=dtype, device=device)
    path = LinearPath()
    _, derivative = torch.func.jvp(lambda time: path.interpolate(time, x_0, x_1)[0], (t,), (torch.ones_like(t),))
    torch.testing.assert_close(path.sample(t, x_0, x_1).velocity, derivative)


def test_stratified_times_put_one_in_each_stratum() -> None:
    times = stratified_times(seed=0, step=5, positions=range(64), batch_size=64)
    assert torch.equal((times * 64).floor(), torch.arange(64, dtype=torch.float64))


def test_stratified_times_do_not_depend_on_how_the_batch_is_divided() -> None:
    whole = stratified_times(0, 5, range(64), 64)
    parts = torch.cat([stratified_times(0, 5, range(start, start + 16), 64) for start in range(0, 64, 16)])
    assert torch.equal(whole, parts)
    assert not torch.equal(whole, stratified_times(0, 6, range(64), 64))


def test_each_time_is_uniform_in_its_stratum() -> None:
    """The shared offset over 5,000 steps has mean 1/2, within 5 standard errors."""
    offsets = torch.stack([stratified_times(0, step, range(1), 1) for step in range(5000)])
    assert abs(offsets.mean() - 0.5) < 5 * (1 / 12 / 5000) ** 0.5
