"""The ways a command can end, one exception and one exit code each.

A message says `where: what was found; what was expected. What to do.` in one line; the command line prints
it without a traceback and exits with `code`. Anything else that escapes is a defect of this project and keeps its
traceback.
"""


class AlignmentError(Exception):
    """Base of every refusal. `code` is the exit code of the command (docs/architecture.md has the table)."""

    code = 1


class RecipeError(AlignmentError):
    """The recipe or the command line is wrong; nothing was started."""

    code = 2


class DataError(AlignmentError):
    """A source, a row or a chat template cannot be used as asked."""

    code = 3


class DivergedError(AlignmentError):
    """The loss or a gradient is not a finite number, or a step-0 gate does not hold."""

    code = 4


class LaunchError(AlignmentError):
    """Disk, memory, a lost or hung rank, a launcher that became something else, a locked folder, a missing library."""

    code = 5


class LostRankError(LaunchError):
    """Other ranks, or the network to them, are gone; the run goes on when all of them start again."""


class PublishError(AlignmentError):
    """Publishing failed; the model is safe on disk."""

    code = 6


class ArtifactError(AlignmentError):
    """A result, or the folder that a stage starts from, failed its verification."""

    code = 7


class Preempted(AlignmentError):
    """Stopped from outside with a checkpoint written; the same command continues it."""

    code = 75
