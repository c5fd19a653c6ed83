"""Plans in files: complete, checked, and named by all they depend on."""

from pathlib import Path

import pytest
import torch

from amgen.transport import Plan, cached_plan, load_plan, plan_key, save_plan, wfr_plan

X = torch.linspace(0, 1, 24, dtype=torch.float64).reshape(12, 2)
A = torch.linspace(1, 2, 12, dtype=torch.float64)
ARGUMENTS = {"x": X, "y": X + 1, "a": A, "b": A.flip(0), "delta": 0.6, "group": 4, "seed": 0, "tolerance": 1e-4}


def unwanted() -> Plan:
    raise AssertionError("solved again")


def test_a_plan_is_solved_once(tmp_path: Path) -> None:
    key, plan = plan_key(**ARGUMENTS), wfr_plan(**ARGUMENTS)
    assert cached_plan(tmp_path / "plans", key, lambda: plan) is plan
    read = cached_plan(tmp_path / "plans", key, unwanted)
    for name in ("rows", "columns", "start_mass", "end_mass"):
        assert getattr(read, name).equal(getattr(plan, name))
    assert (read.primal, read.dual, read.delta, read.groups) == (plan.primal, plan.dual, 0.6, 3)
    assert [file.name for file in (tmp_path / "plans").iterdir()] == [f"{key}.npz"]


def test_a_damaged_file_is_solved_again(tmp_path: Path) -> None:
    key, plan = plan_key(**ARGUMENTS), wfr_plan(**ARGUMENTS)
    file = tmp_path / f"{key}.npz"
    save_plan(file, plan, key)
    whole = file.read_bytes()
    for place in range(0, len(whole), 61):  # in headers, contents and the directory of the archive
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        read = load_plan(file, key)
        assert read is None or (read.rows.equal(plan.rows) and read.start_mass.equal(plan.start_mass) and read.primal == plan.primal)
    for damaged in (b"", whole[: len(whole) // 2], b"no archive"):
        file.write_bytes(damaged)
        assert load_plan(file, key) is None
        assert cached_plan(tmp_path, key, lambda: plan) is plan
        assert file.read_bytes() == whole
    assert load_plan(tmp_path / "absent.npz", key) is None


def test_a_file_of_another_key_is_not_taken(tmp_path: Path) -> None:
    key, other = plan_key(**ARGUMENTS), plan_key(**ARGUMENTS | {"seed": 1})
    save_plan(tmp_path / f"{other}.npz", wfr_plan(**ARGUMENTS), key)
    assert load_plan(tmp_path / f"{other}.npz", other) is None


@pytest.mark.parametrize(
    "changed",
    [{"x": X + 1e-12}, {"y": X}, {"a": 2 * A}, {"b": A}, {"delta": 0.7}, {"delta": None}, {"group": 5}, {"seed": 1}, {"tolerance": 1e-3}],
)
def test_the_key_depends_on_each_argument(changed: dict[str, object]) -> None:
    assert plan_key(**ARGUMENTS | changed) != plan_key(**ARGUMENTS)
    assert plan_key(**ARGUMENTS | {"x": X.clone()}) == plan_key(**ARGUMENTS)


def test_the_key_depends_on_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    key = plan_key(**ARGUMENTS)
    monkeypatch.setattr("amgen.transport.cache.VERSION", 1000)
    assert plan_key(**ARGUMENTS) != key
