"""What is carried from update to update, what is watched, and which rows a forward pass takes."""

import pytest
import torch

from alignment.measure.scorers import SCORERS
from alignment.recipe.stage_spec import AlertSpec, ScorerName
from alignment.train.ppo.control import KLController, RunningScale
from alignment.train.ppo.mini_batches import plan_update
from alignment.train.ppo.watch import Watch

CALM = {"rollout/length": 20.0, "objective/entropy": 2.0, "objective/kl": 4.0}


def test_the_recipe_knows_every_scorer_by_name() -> None:
    assert set(ScorerName.__args__) == set(SCORERS)


def test_a_fixed_coefficient_stays_and_an_adaptive_one_follows_its_error() -> None:
    fixed, adaptive = KLController(0.05), KLController(0.05, target=6.0, horizon=1000)
    for controller in (fixed, adaptive):
        controller.update(6.6, 100)
    assert fixed.value == 0.05
    assert adaptive.value == pytest.approx(0.05 * (1 + 0.1 * 100 / 1000))
    adaptive.update(100.0, 100)  # the error counts as 0.2 at most
    assert adaptive.value == pytest.approx(0.05 * 1.01 * 1.02)
    again = KLController(0.05, target=6.0, horizon=1000)
    again.load(adaptive.state())
    assert again.value == adaptive.value


def test_the_running_scale_is_that_of_all_scores_so_far() -> None:
    scores = torch.randn(40, generator=torch.Generator().manual_seed(0)) * 3 + 7
    scale = RunningScale()
    for part in scores.split([1, 9, 30]):
        scale.update(part)
    assert scale.deviation == pytest.approx(scores.std().item(), rel=1e-6)
    again = RunningScale()
    again.load(scale.state())
    assert again == scale


def plan(rank: int, world_size: int, per_device: int, update: int = 0) -> list:
    lengths = [5 + (7 * n) % 11 for n in range(24)]
    return plan_update(
        lengths, [length - 3 for length in lengths], num_epochs=2, global_batch_size=8, per_device_batch_size=per_device,
        rank=rank, world_size=world_size, seed=3, update=update,
    )  # fmt: skip


@pytest.mark.parametrize(("world_size", "per_device"), [(1, 8), (1, 2), (2, 4), (4, 1)])
def test_every_mini_batch_has_the_same_rows_and_tokens_for_any_split(world_size: int, per_device: int) -> None:
    whole = plan(0, 1, 8)
    ranks = [plan(rank, world_size, per_device) for rank in range(world_size)]
    passes = 8 // world_size // per_device
    for number, mini_batch in enumerate(whole):
        parts = [one for mine in ranks for one in mine[number * passes : (number + 1) * passes]]
        assert sorted(row for one in parts for row in one.rows) == sorted(mini_batch.rows)
        assert {one.num_tokens for one in parts} == {mini_batch.num_tokens}
    first_epoch = sorted(row for one in whole[:3] for row in one.rows)
    assert first_epoch == list(range(24))
    assert [one.rows for one in whole[:3]] != [one.rows for one in whole[3:]]
    assert plan(0, 1, 8, update=1)[0].rows != whole[0].rows


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("kl", {"objective/kl": 50.0}),
        ("length", {"rollout/length": 4.0}),
        ("length", {"rollout/length": 100.0}),
        ("entropy", {"objective/entropy": 0.05}),
    ],
)
def test_an_update_out_of_bounds_is_said_and_a_calm_one_is_not(name: str, changed: dict) -> None:
    watch = Watch(AlertSpec())
    assert list(watch.look_at_update(CALM)) == []
    again = Watch(AlertSpec())
    again.load(watch.state())  # a resumed run compares with the same first update
    [alert] = again.look_at_update(CALM | changed)
    assert alert.name == name


def test_a_score_that_rises_while_the_gold_score_falls_is_said() -> None:
    watch = Watch(AlertSpec(standard_errors=2.0))
    assert list(watch.look_at_held_out((1.0, 0.1), (0.5, 0.05))) == []
    assert list(watch.look_at_held_out((2.0, 0.1), (0.5, 0.05))) == []
    assert list(watch.look_at_held_out((1.1, 0.1), (0.1, 0.05))) == []
    [alert] = watch.look_at_held_out((2.0, 0.1), (0.1, 0.05))
    assert alert.name == "reward_hacking"
    assert list(watch.look_at_held_out((2.0, 0.1), None)) == []
