"""Steps, accumulation and row order, against a slow oracle and by hand."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.errors import DataError, RecipeError
from alignment.recipe.schedule import Schedule, make_schedule, row_order
from alignment.recipe.train_spec import TrainSpec


def spec(**keys) -> TrainSpec:
    return TrainSpec(**({"learning_rate": 1e-4} | keys))


def test_the_remainder_of_an_epoch_is_carried_into_the_next_one() -> None:
    """10 rows x 3 epochs are 30 positions: 7 batches of 4 are 28, and 2 rows of the last batch are dropped."""
    schedule = make_schedule(spec(num_train_epochs=3, global_batch_size=4, per_device_train_batch_size=2), 10, 2)
    assert schedule == Schedule(
        steps=7,
        global_batch_size=4,
        per_device_batch_size=2,
        accumulation=1,
        num_rows=10,
        epochs=2.8,
        dropped_rows=2,
        warmup_steps=0,
    )
    assert schedule.num_positions == 28


def test_max_steps_may_make_many_passes_and_drops_nothing() -> None:
    schedule = make_schedule(spec(max_steps=5, global_batch_size=8, per_device_train_batch_size=8), 10, 1)
    assert (schedule.steps, schedule.epochs, schedule.dropped_rows) == (5, 4.0, 0)


def test_part_of_an_epoch_is_rounded_to_whole_rows() -> None:
    """0.5 x 10 rows are 5: 2 batches of 2."""
    schedule = make_schedule(spec(num_train_epochs=0.5, global_batch_size=2, per_device_train_batch_size=2), 10, 1)
    assert (schedule.steps, schedule.dropped_rows) == (2, 1)


@pytest.mark.parametrize("batch", range(1, 49))
def test_every_batch_suits_some_number_of_processes(batch: int) -> None:
    """With one row each at the latest, so a recipe alone cannot be refused for its two batch sizes."""
    for per_device in range(1, 17):
        train = spec(max_steps=1, global_batch_size=batch, per_device_train_batch_size=per_device)
        assert make_schedule(train, 100, batch).per_device_batch_size == 1


def slow_split(batch: int, per_device: int, world: int) -> tuple[int, int] | None:
    """Passes of equal size on every process: the largest that is asked for at the most."""
    if batch % world == 0 and batch // world <= per_device:
        return batch // world, 1
    passes = [n for n in range(1, batch + 1) if n * per_device * world == batch]
    return (per_device, passes[0]) if passes else None


@given(st.integers(1, 64), st.integers(1, 16), st.integers(1, 9))
@settings(max_examples=300, deadline=None)
def test_every_batch_is_dealt_in_whole_passes_or_refused(batch: int, per_device: int, world: int) -> None:
    train = spec(max_steps=3, global_batch_size=batch, per_device_train_batch_size=per_device)
    expected = slow_split(batch, per_device, world)
    if expected is None:
        with pytest.raises(RecipeError, match=r"train\.global_batch_size"):
            make_schedule(train, 100, world)
        return
    schedule = make_schedule(train, 100, world)
    assert (schedule.per_device_batch_size, schedule.accumulation) == expected
    assert schedule.per_device_batch_size * schedule.accumulation * world == batch


def test_a_batch_that_does_not_divide_is_refused_with_one_that_does() -> None:
    train = spec(max_steps=3, global_batch_size=12, per_device_train_batch_size=8)
    with pytest.raises(RecipeError, match=r"a multiple of 8 was expected.*per_device_train_batch_size 6 would"):
        make_schedule(train, 100, 1)
    with pytest.raises(RecipeError, match="no batch on 5 processes can"):
        make_schedule(train, 100, 5)


@pytest.mark.parametrize("world", [1, 2, 4])
def test_steps_and_rows_do_not_depend_on_the_processes(world: int) -> None:
    train = spec(num_train_epochs=2.5, global_batch_size=8, per_device_train_batch_size=2)
    one, many = make_schedule(train, 37, 1), make_schedule(train, 37, world)
    assert replace(many, accumulation=one.accumulation, per_device_batch_size=one.per_device_batch_size) == one
    assert (row_order(many, 7) == row_order(one, 7)).all()


def slow_order(num_rows: int, positions: int, seed: int) -> list[int]:
    """Epochs laid end to end, row by row."""
    rows, epoch = [], 0
    while len(rows) < positions:
        permutation = np.random.Generator(np.random.PCG64([seed, epoch])).permutation(num_rows)
        rows += [int(row) for row in permutation]
        epoch += 1
    return rows[:positions]


@given(st.integers(1, 30), st.integers(1, 8), st.integers(1, 8), st.integers(0, 2**40))
@settings(max_examples=100, deadline=None)
def test_the_order_is_the_slow_one_and_uses_rows_evenly(num_rows: int, batch: int, steps: int, seed: int) -> None:
    train = spec(max_steps=steps, global_batch_size=batch, per_device_train_batch_size=batch)
    schedule = make_schedule(train, num_rows, 1)
    order = row_order(schedule, seed)
    assert order.dtype == np.int64
    assert order.tolist() == slow_order(num_rows, steps * batch, seed)
    counts = np.bincount(order, minlength=num_rows)
    assert counts.max() - counts.min() <= 1


def test_a_longer_run_begins_with_the_rows_of_a_shorter_one() -> None:
    orders = [
        row_order(make_schedule(spec(max_steps=steps, global_batch_size=4, per_device_train_batch_size=4), 10, 1), 3)
        for steps in (3, 9)
    ]
    assert orders[1][:12].tolist() == orders[0].tolist()


def test_rows_of_a_global_batch_stand_by_length_and_are_the_same_rows() -> None:
    lengths = np.array([5, 1, 9, 3, 7, 2, 8, 4, 6, 10])
    schedule = make_schedule(spec(max_steps=5, global_batch_size=4, per_device_train_batch_size=2), 10, 1)
    plain, by_length = row_order(schedule, 3), row_order(schedule, 3, lengths)
    for batch, sorted_batch in zip(plain.reshape(5, 4), by_length.reshape(5, 4), strict=True):
        assert sorted(batch) == sorted(sorted_batch)
        assert lengths[sorted_batch].tolist() == sorted(lengths[batch], reverse=True)


def test_seeds_and_epochs_give_other_orders() -> None:
    schedule = make_schedule(spec(num_train_epochs=2, global_batch_size=50, per_device_train_batch_size=50), 50, 1)
    order = row_order(schedule, 1)
    assert order[:50].tolist() != order[50:].tolist()
    assert order.tolist() != row_order(schedule, 2).tolist()


def test_a_global_batch_is_the_same_rows_however_it_is_dealt() -> None:
    """accelerate deals passes to ranks in turn: pass p of the run goes to rank p % world."""
    train = spec(max_steps=6, global_batch_size=8, per_device_train_batch_size=2)
    dealt = {}
    for world in (1, 2, 4):
        schedule = make_schedule(train, 20, world)
        passes = row_order(schedule, 5).reshape(-1, schedule.per_device_batch_size)
        a_step = world * schedule.accumulation
        steps = [passes[step * a_step : (step + 1) * a_step] for step in range(schedule.steps)]
        ranks = [[step[rank::world].ravel() for rank in range(world)] for step in steps]
        dealt[world] = [sorted(np.concatenate(step).tolist()) for step in ranks]
    assert dealt[1] == dealt[2] == dealt[4]


def test_rows_that_fill_no_batch_are_refused() -> None:
    train = spec(num_train_epochs=1, global_batch_size=8, per_device_train_batch_size=8)
    with pytest.raises(DataError, match=r"data\.train: 7 rows x 1\.0 epochs are 7; at least one global batch of 8"):
        make_schedule(train, 7, 1)
    with pytest.raises(DataError, match=r"data\.train: 0 rows; at least one global batch of 8"):
        make_schedule(spec(max_steps=3, global_batch_size=8), 0, 1)
