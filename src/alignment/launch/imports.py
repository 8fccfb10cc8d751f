"""Imports, which are most of the time to a run's first step."""

import contextlib
import gc
import importlib
import sys
from collections.abc import Iterable, Iterator


@contextlib.contextmanager
def without_collecting() -> Iterator[None]:
    """Within, no garbage is looked for: imports make objects that stay, and looking through them is a fifth of their time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            if not gc.get_freeze_count():
                # Into the oldest generation: the first collection after this would look through all of it.
                gc.freeze()
                gc.unfreeze()
            gc.enable()


@contextlib.contextmanager
def sparing_scipy() -> Iterator[None]:
    """Within, transformers 5.23 does not see scipy: it imports it, a tenth of all the time, for the losses of object detectors."""
    from transformers import utils

    found = utils.is_scipy_available
    utils.is_scipy_available = lambda: False
    try:
        yield
    finally:
        utils.is_scipy_available = found


def import_stages(stages: Iterable[str]) -> None:
    """Imports what the stages need to run.

    Args:
        stages: names of `alignment.train.stages.STAGES`.
    """
    is_new_process = "torch" not in sys.modules
    with without_collecting(), sparing_scipy():
        from alignment.train.stages import STAGES

        for stage in stages:
            importlib.import_module(STAGES[stage])
        importlib.import_module("alignment.train.prepare")
        importlib.import_module("alignment.launch.check")
        spare_deepspeed()
    if is_new_process:
        gc.freeze()  # what was imported stays: no later collection looks through it


def spare_deepspeed() -> None:
    """Keeps DeepSpeed out of runs without it.

    accelerate 1.15 imports it wherever it is installed, to ask whether a model is one of its engines; where it was never imported
    none is.
    """
    from accelerate.utils import other

    other.is_deepspeed_available = lambda: "deepspeed" in sys.modules
