"""SIGTERM and Ctrl-C: asked once, a run ends at its next step boundary with a sealed checkpoint; asked twice, at once.

Within the steps the request is only noted: all ranks must stop at the same step, so `guard.py` agrees on it. Outside of them there is
nothing to seal that is not sealed already, and the run ends where it is.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

from alignment.errors import Preempted

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# A scheduler may send one signal to a launcher and to its ranks, and the launcher passes it on: that is one request.
SAME_REQUEST_SECONDS = 1.0


class StopRequest:
    """Whether, and by which signal, this process was asked to stop.

    Attributes:
        number: of the signal; None as long as nobody asked.
        in_steps: whether the training loop is at work, which looks at `number` at every step.
        sealed: whether the request was met. A launcher that repeats it then, because another rank has ended, is not heard.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.in_steps = False
        self.sealed = False
        self._since = 0.0

    @property
    def name(self) -> str:
        """The signal's name; of a rank that only heard of the request from another, `a signal to another rank`."""
        return signal.Signals(self.number).name if self.number is not None else "a signal to another rank"

    def take(self, number: int, _: FrameType | None = None) -> None:
        """The signal handler.

        Raises:
            Preempted: outside of the steps.
        """
        if self.sealed:
            return
        if self.number is not None:
            if time.monotonic() - self._since > SAME_REQUEST_SECONDS:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        self.number, self._since = number, time.monotonic()
        if not self.in_steps:
            raise Preempted(
                f"stopped by {self.name} outside of the training steps; what was sealed is kept. The same command goes on."
            )


@contextlib.contextmanager
def listening() -> Iterator[StopRequest]:
    """Inside, SIGINT and SIGTERM are requests to stop. In threads other than the main one nothing changes."""
    request = StopRequest()
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, request.take) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
