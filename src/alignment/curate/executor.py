"""datatrove's local executor, run quietly and without its dependency polling."""

import os
from pathlib import Path
from typing import Any

from datatrove.executor.local import LocalPipelineExecutor
from loguru import logger


class QuietExecutor(LocalPipelineExecutor):
    """Says nothing on stderr: refusals are the command line's to print, and counts are in the receipt."""

    def _run_for_rank(self, rank: int, local_rank: int = 0, node_rank: int = -1):
        logger.disable("datatrove")
        return super()._run_for_rank(rank, local_rank, node_rank)


def run_tasks(pipeline: list[Any], tasks: int, workers: int, logs: Path) -> None:
    """Runs a pipeline's tasks that have no completion marker in `logs`. An exception of a task ends the run."""
    # The pool's processes inherit it: each task is one thread of work.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    logger.disable("datatrove")
    # Forked: everything is imported, and nothing that has threads has run yet.
    QuietExecutor(
        pipeline=pipeline, tasks=tasks, workers=max(workers, 1), logging_dir=str(logs), start_method="fork"
    ).run()
