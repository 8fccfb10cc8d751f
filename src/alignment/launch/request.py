"""What the command line asks of `alignment train`, as every process of the launch sees it."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from alignment.errors import RecipeError
from alignment.recipe.resolved import run_folder


@dataclass(frozen=True)
class TrainRequest:
    """One stage to run.

    Raises:
        RecipeError: fewer than one process or machine.
    """

    recipe_path: Path
    overrides: tuple[str, ...] = ()  # --set a.b=value, in order
    out: Path | None = None  # run folder; None: runs/STUDY/RECIPE
    accelerate_config: str | None = None  # a name of accelerate_configs/ or a path
    num_processes: int | None = None  # None: as the config says, of a pipeline on CPUs two
    num_machines: int | None = None
    report_to: str | None = None
    fresh: bool = False  # set an existing run aside and start anew
    command: tuple[str, ...] = ()  # as the user gave it
    accelerate_args: tuple[str, ...] = ()  # after `--`, for accelerate

    def __post_init__(self) -> None:
        for name in ("num_processes", "num_machines"):
            asked = getattr(self, name)
            if asked is not None and asked < 1:
                raise RecipeError(f"--{name}: {asked}; at least 1 was expected. Write how many, or leave it out.")

    @property
    def run_dir(self) -> Path:
        """The run folder."""
        return Path(self.out) if self.out else run_folder(self.recipe_path)

    @property
    def resume_command(self) -> str:
        """What continues the run, for exit.json."""
        return shlex.join(self.command) or f"alignment train {self.recipe_path}"
