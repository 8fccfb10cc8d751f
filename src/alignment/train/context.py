"""Where and under what a stage runs: one context for each process, settled before a model is loaded."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from alignment.train.heartbeat import Hang
from alignment.train.stopping import StopRequest

if TYPE_CHECKING:
    from transformers import Trainer


logger = logging.getLogger(__name__)


def _say_hang(hang: Hang) -> None:
    logger.error("%s", hang)


@dataclass(frozen=True)
class StageContext:
    """What the launcher decided for this process."""

    recipe_path: Path
    run_dir: Path
    prepared_folder: Path | None  # None for a stage that reads no prepared rows
    rank: int = 0
    world_size: int = 1
    cpu: bool = True  # no accelerator is used
    strategy: str = "single"  # single, ddp, zero1, zero2, zero3 or fsdp2
    report_to: str | None = None
    command: tuple[str, ...] = ()  # as the user gave it, for the receipt
    prepare_seconds: float = 0.0
    # Refuses a launch that became something else; called by every rank once the trainer has wrapped its model.
    check_launch: "Callable[[Trainer], None] | None" = None
    stop: StopRequest = field(default_factory=StopRequest)
    supervised: bool = False  # a launcher of ours watches the heartbeats
    on_hang: Callable[[Hang], None] = _say_hang  # what ends the process, where none does
