"""The progress line, with a clock and a stream of our own."""

import io

import pytest

from alignment.train.console import Console, make_duration, make_short_number


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_file_gets_the_first_line_one_every_30_seconds_and_the_last() -> None:
    stream, clock = io.StringIO(), Clock()
    console = Console(True, stream=stream, clock=clock)
    console.start(100)
    for step in range(1, 101):
        clock.now += 1
        console.update(step, {"loss": 1.0})
    console.close()
    steps = [line.split()[1] for line in stream.getvalue().splitlines()]
    assert steps == ["1/100", "31/100", "61/100", "91/100", "100/100"]
    assert "\r" not in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_a_line_says_step_loss_speed_and_time_left() -> None:
    stream, clock = io.StringIO(), Clock()
    console = Console(True, stream=stream, clock=clock)
    console.start(500)
    clock.now += 60
    console.update(100, {"loss": 1.23456, "tokens_per_second": 12100.0, "learning_rate": 1e-3})
    # 100 steps a minute leave 400 steps for 4 minutes.
    assert stream.getvalue() == "step 100/500  loss 1.235  12.1k tok/s  4m00s left\n"


def test_time_left_of_a_resumed_run_counts_only_the_steps_of_this_process() -> None:
    stream, clock = io.StringIO(), Clock()
    console = Console(True, stream=stream, clock=clock)
    console.start(500, first_step=400)
    clock.now += 60
    console.update(450)
    assert stream.getvalue() == "step 450/500  1m00s left\n"


def test_the_loss_stays_on_the_line_when_an_evaluation_is_logged() -> None:
    stream, clock = io.StringIO(), Clock()
    console = Console(True, stream=stream, clock=clock)
    console.start(10)
    console.update(10, {"loss": 2.0})
    console.update(10, {"eval_loss": 3.0})
    console.close()
    assert stream.getvalue().splitlines() == ["step 10/10  loss 2", "step 10/10  loss 2  eval loss 3"]


def test_the_last_line_is_not_written_twice() -> None:
    stream = io.StringIO()
    console = Console(True, stream=stream, clock=Clock())
    console.start(1)
    console.update(1, {"loss": 2.0})
    console.close()
    console.close()
    assert stream.getvalue().count("\n") == 1


def test_a_terminal_has_one_line_that_is_rewritten() -> None:
    stream, clock = Terminal(), Clock()
    console = Console(True, stream=stream, clock=clock)
    console.start(3)
    for step in (1, 2, 3):
        clock.now += 1
        console.update(step, {"loss": float(step)})
    console.close()
    text = stream.getvalue()
    assert text.count("\r\x1b[2K") == 3
    assert text.endswith("step 3/3  loss 3\n")
    assert text.count("\n") == 1


def test_a_line_is_never_wider_than_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    stream = Terminal()
    console = Console(True, stream=stream, clock=Clock())
    console.start(1000)
    console.update(1, {"loss": 1.0, "eval_loss": 2.0, "tokens_per_second": 1e6})
    assert len(stream.getvalue().removeprefix("\r\x1b[2K")) == 19


@pytest.mark.parametrize("stream_type", [io.StringIO, Terminal])
def test_other_ranks_say_nothing(stream_type) -> None:
    stream = stream_type()
    console = Console(False, stream=stream, clock=Clock())
    console.start(10)
    console.update(1, {"loss": 1.0})
    console.close()
    assert stream.getvalue() == ""


def test_durations_and_numbers_are_short() -> None:
    assert [make_duration(s) for s in (0.2, 42, 59.5, 125, 7380, 349200)] == [
        "1s", "42s", "1m00s", "2m05s", "2h03m", "4d01h",
    ]  # fmt: skip
    assert [make_short_number(n) for n in (7, 987, 12100, 3.4e6, 2e9)] == ["7", "987", "12.1k", "3.4M", "2.0G"]
