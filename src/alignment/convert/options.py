"""What the person says about a file that the file does not say itself."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """Options of `alignment import`; None: as the file, or the project's own habit, has it."""

    stage: str | None = None
    num_processes: int | None = None
    rows: int | None = None  # training rows, to turn a share of the steps into steps
    dataset_info: Path | None = None  # LLaMA-Factory's table of data sets
