"""Live tracking, asked for with `--report_to` and off otherwise: trackio, tensorboard or wandb.

A tracker receives what metrics.jsonl receives, at the same global step; the file stays the source of truth. Libraries are
imported when their tracker is opened. Every opening is a run of its own, named RECIPE-SHORTID in the group RECIPE: a resumed run
that wrote on under the old name would draw a saw-tooth.
"""

import contextlib
import importlib
import io
import logging
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from alignment.errors import LaunchError, RecipeError

logger = logging.getLogger(__name__)


class Tracker(Protocol):
    """Where metrics go while a run is under way."""

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """Sends numbers under the names of metrics.jsonl; anything that is not a number stays behind."""

    def finish(self) -> None:
        """Hands over what is still waiting. Without it the last half second may be lost."""


def open_tracker(name: str, run_dir: Path, recipe_name: str) -> Tracker:
    """Starts tracking a run; call it on rank 0 alone.

    Args:
        name: a key of TRACKERS.
        run_dir: trackio and tensorboard write into their folder inside it.
        recipe_name: STUDY/RECIPE; the study becomes the project.

    Raises:
        RecipeError: an unknown tracker.
        LaunchError: its library is not installed.
    """
    if name not in TRACKERS:
        raise RecipeError(f"--report_to: {name!r}; one of {', '.join(TRACKERS)} was expected. Correct it.")
    study, _, recipe = recipe_name.rpartition("/")
    return TRACKERS[name](Path(run_dir), study or "alignment", recipe)


def _run_name(recipe: str) -> str:
    return f"{recipe}-{secrets.token_hex(3)}"


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items() if isinstance(value, int | float)}


def _import(module: str, package: str, tracker: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise LaunchError(
            f"--report_to {tracker}: {error}; the package {package} was expected. Install it with `pip install {package}`."
        ) from error


# ------------------------------------------------------------------------------------------------ trackio


class TrackioTracker:
    """Rows in RUN/trackio/STUDY.db, a SQLite file; no account and no network."""

    def __init__(self, run_dir: Path, study: str, recipe: str) -> None:
        folder = (run_dir / "trackio").absolute()
        self._trackio = _import_trackio(folder)
        # It prints on stdout, which belongs to the command's own output.
        with contextlib.redirect_stdout(io.StringIO()):
            self._run = self._trackio.init(project=study, name=_run_name(recipe), group=recipe, embed=False)
        logger.info("trackio: watch with TRACKIO_DIR=%s trackio show --project %s", folder, study)

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """As Tracker.log."""
        self._run.log(_numbers(metrics), step=step)

    def finish(self) -> None:
        """As Tracker.finish."""
        # Not the run's own finish: trackio would finish it once more, and say so, when the process exits.
        with contextlib.redirect_stdout(io.StringIO()):
            self._trackio.finish()


def _import_trackio(folder: Path) -> ModuleType:
    """trackio writing to `folder`, or to TRACKIO_DIR where the user has set that.

    trackio 0.43 reads TRACKIO_DIR once, when it is imported (trackio/utils.py).
    """
    given = os.environ.get("TRACKIO_DIR")
    wanted = Path(given or folder)
    os.environ["TRACKIO_DIR"] = str(wanted)
    try:
        trackio = _import("trackio", "trackio", "trackio")
    finally:
        if not given:
            del os.environ["TRACKIO_DIR"]
    used = importlib.import_module("trackio.utils").TRACKIO_DIR
    if used != wanted:
        raise LaunchError(
            f"--report_to trackio: this process already writes to {used}; {wanted} was expected. Train each stage in a process "
            "of its own, or set TRACKIO_DIR to one folder for all of them."
        )
    return trackio


# ------------------------------------------------------------------------------------------------ tensorboard


class TensorboardTracker:
    """An event file in RUN/tensorboard/RECIPE-SHORTID."""

    def __init__(self, run_dir: Path, study: str, recipe: str) -> None:
        module = _import("torch.utils.tensorboard", "tensorboard", "tensorboard")
        folder = run_dir / "tensorboard"
        self._writer = module.SummaryWriter(log_dir=str(folder / _run_name(recipe)), flush_secs=5)
        logger.info("tensorboard: watch with tensorboard --logdir %s", folder)

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """As Tracker.log."""
        for name, value in _numbers(metrics).items():
            self._writer.add_scalar(name, value, step)

    def finish(self) -> None:
        """As Tracker.finish."""
        self._writer.close()


# ------------------------------------------------------------------------------------------------ wandb


class WandbTracker:
    """A Weights & Biases run. WANDB_MODE=offline keeps it in RUN/wandb, and all WANDB_ variables hold as wandb documents them."""

    def __init__(self, run_dir: Path, study: str, recipe: str) -> None:
        wandb = _import("wandb", "wandb", "wandb")
        # wandb would otherwise upload the git remote, the diff and the source code.
        settings = wandb.Settings(disable_git=True, save_code=False)
        self._run = wandb.init(
            project=study,
            name=_run_name(recipe),
            group=recipe,
            dir=str(run_dir),
            settings=settings,
            reinit="create_new",
        )

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """As Tracker.log."""
        self._run.log(_numbers(metrics), step=step)

    def finish(self) -> None:
        """As Tracker.finish."""
        self._run.finish()


TRACKERS: dict[str, Callable[[Path, str, str], Tracker]] = {
    "trackio": TrackioTracker,
    "tensorboard": TensorboardTracker,
    "wandb": WandbTracker,
}
