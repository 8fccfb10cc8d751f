"""`alignment run`: the stages of a pipeline in order, each in processes of its own; what is done is skipped.

On a CPU the heavy libraries are imported once, by this process, and every stage is forked from it; on GPUs every stage is
a fresh process. Nothing is imported at all when everything is done.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from alignment.errors import RecipeError
from alignment.launch.configs import LaunchConfig, find_config
from alignment.launch.environment import has_gpu, num_threads
from alignment.launch.request import TrainRequest
from alignment.launch.results import write_results
from alignment.launch.stages import Stage, check_stages, judge_stage, load_stages
from alignment.launch.start import LOGS, SEVERAL, launch_processes, launch_ranks
from alignment.launch.worker import run_worker, set_up_logging
from alignment.recipe.pipeline import load_pipeline
from alignment.recipe.resolved import run_folder
from alignment.recipe.schedule import split_batch
from alignment.recipe.schema import Recipe

logger = logging.getLogger(__name__)
CPU_RANKS = 2  # where nobody says how many


@dataclass(frozen=True)
class Outcome:
    """How a pipeline ended."""

    code: int
    stages: tuple[Stage, ...]
    report: Path  # the study's page


def run_pipeline(path: Path, options: TrainRequest) -> Outcome:
    """Runs what is not done, stops at the first stage that fails, and writes results and page of the stages that are done.

    Args:
        path: a pipeline, or the folder that holds one.
        options: what every stage is asked; its recipe_path is not read.

    Raises:
        RecipeError, DataError: a mistake, a missing input, or a run of another recipe; nothing was started.
    """
    pipeline = load_pipeline(path)
    config = _find_config(options, pipeline.path)
    stages = load_stages(pipeline)
    study = pipeline.path.parent
    check_stages(stages, study, fresh=options.fresh)
    set_up_logging(0)
    code = _run_stages(stages, options, config)
    study_dir = run_folder(pipeline.path).parent
    return Outcome(code, tuple(stages), write_results(study_dir, stages))


def _find_config(options: TrainRequest, pipeline: Path) -> LaunchConfig | None:
    if (options.num_machines or 1) > 1:
        raise RecipeError(
            "--num_machines: a pipeline runs on one machine. For several, give each recipe to `alignment train` on all of them."
        )
    if options.accelerate_config is None and (options.num_processes or 1) == 1:
        return None
    return find_config(options.accelerate_config or SEVERAL, pipeline)


def _run_stages(stages: Sequence[Stage], options: TrainRequest, config: LaunchConfig | None) -> int:
    for number, stage in enumerate(stages, start=1):
        verdict = judge_stage(stage)
        if verdict.action == "done" and not options.fresh:
            logger.info("%s: done", stage.run_dir)
            continue
        why = f": {verdict.reason}, so it is made anew; the old run is set aside" if verdict.action == "anew" else ""
        logger.info("stage %d of %d, %s%s", number, len(stages), stage.recipe_path, why)
        request = replace(options, recipe_path=stage.recipe_path, fresh=options.fresh or verdict.action == "anew")
        code = _run_stage(stage, request, config, [later.recipe.stage for later in stages[number - 1 :]])
        if code != 0:
            logger.error(
                "%s: stopped with exit code %d; %d of %d stages are done. The same command%s goes on from here.",
                stage.recipe_path,
                code,
                number - 1,
                len(stages),
                " without --fresh" if options.fresh else "",
            )
            return code
    return 0


def _run_stage(stage: Stage, request: TrainRequest, config: LaunchConfig | None, upcoming: Sequence[str]) -> int:
    """One stage in processes of its own.

    Args:
        upcoming: kinds of this and the later stages, to import once what they need.
    """
    if has_gpu():
        return launch_processes(request, stage.recipe, config)
    from alignment.launch.ranks import preload, run_ranks

    preload(upcoming)
    if config is None and request.num_processes is None and (ranks := _ranks_by_default(stage.recipe)) > 1:
        request, config = replace(request, num_processes=ranks), find_config(SEVERAL, stage.recipe_path)
    if config is not None:
        return launch_ranks(request, stage.recipe, config)
    return run_ranks(lambda: run_worker(request), config=None, num_processes=1, log_dir=stage.run_dir / LOGS)


def _ranks_by_default(recipe: Recipe) -> int:
    """CPU ranks of a stage for which nobody says how many: two where the cores are there and two can share the batches.

    Small models leave a second thread idle while Python goes from one operation to the next; a second rank has a Python of
    its own. More than two were not measured, and each holds a whole model. What is no work of a model is done by one rank.
    """
    train = getattr(recipe, "train", None)
    ranks = min(CPU_RANKS, num_threads(1))
    if train is None:
        return ranks if recipe.stage == "evaluate" else 1
    try:
        split_batch(train, ranks)
    except RecipeError:  # no mistake of somebody who never asked for two
        return 1
    return ranks
