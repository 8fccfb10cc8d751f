"""Where and under what a stage runs: one context for each process, settled before a model is loaded."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import Trainer


@dataclass(frozen=True)
class StageContext:
    """What the launcher decided for this process."""

    recipe_path: Path
    run_dir: Path
    prepared_folder: Path
    rank: int = 0
    world_size: int = 1
    cpu: bool = True  # no accelerator is used
    strategy: str = "single"  # single, ddp, zero1, zero2, zero3 or fsdp2
    report_to: str | None = None
    command: tuple[str, ...] = ()  # as the user gave it, for the receipt
    prepare_seconds: float = 0.0
    # Refuses a launch that became something else; called by every rank once the trainer has wrapped its model.
    check_launch: "Callable[[Trainer], None] | None" = None
