"""What there is to submit: for a recipe one job, for a pipeline those of the stages that are not done, and what comes after them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from alignment.errors import DataError, RecipeError
from alignment.launch.configs import find_config
from alignment.launch.inputs import describe_missing, find_missing
from alignment.launch.request import TrainRequest
from alignment.launch.slurm import Job, Resources, make_command_job, make_push_job, make_train_job
from alignment.launch.stages import Stage, check_stages, judge_stage, load_stages
from alignment.recipe.loader import load_recipe
from alignment.recipe.pipeline import is_pipeline, load_pipeline
from alignment.recipe.schema import Recipe
from alignment.report.parents import named_parents
from alignment.train.run_folder import clear, judge_run

_WITHOUT_MODEL = ("curate", "tokenizer")


@dataclass(frozen=True)
class Chain:
    """Jobs in order, and the run folders that are set aside before they are submitted."""

    jobs: tuple[Job, ...]
    set_aside: tuple[Path, ...] = ()
    done: tuple[Path, ...] = ()  # run folders for which there is nothing to do


def make_chain(
    request: TrainRequest, resources: Resources, *, push: str | None = None, after: str | None = None
) -> Chain:
    """The jobs for a recipe, a pipeline, or the folder of one. Writes nothing.

    Args:
        push: an organisation; what is made is published as ORG/STUDY-STAGE once all is done.
        after: a job that makes what the first stage starts from, so that it need not be there yet.

    Raises:
        RecipeError, DataError: a mistake, a missing input, or a run of another recipe.
    """
    path = request.recipe_path
    if request.accelerate_config is not None:
        find_config(request.accelerate_config, path)
    if path.is_dir() or is_pipeline(path):
        return _chain_pipeline(request, resources, push)
    return _chain_recipe(request, resources, push, after)


def clear_the_way(chain: Chain) -> None:
    """Sets old runs aside, which the jobs make anew; nothing is ever deleted."""
    for run_dir in chain.set_aside:
        clear(run_dir)


def _chain_recipe(request: TrainRequest, resources: Resources, push: str | None, after: str | None) -> Chain:
    recipe = load_recipe(request.recipe_path, request.overrides)
    missing = [one for one in find_missing(request.recipe_path, recipe) if one.is_data or after is None]
    if missing:
        kind = DataError if any(one.is_data for one in missing) else RecipeError
        raise kind(describe_missing(missing, request.recipe_path.parent))
    run_dir = request.run_dir
    is_done = not request.fresh and judge_run(recipe, run_dir) == "done"
    jobs = [] if is_done else [_job(request, recipe, run_dir, resources)]
    if push is not None:
        jobs.append(make_push_job(run_dir, push, resources, range(len(jobs))))
    return Chain(tuple(jobs), (run_dir,) if request.fresh else (), (run_dir,) if is_done else ())


def _chain_pipeline(request: TrainRequest, resources: Resources, push: str | None) -> Chain:
    if request.overrides or request.out:
        raise RecipeError(
            f"{request.recipe_path}: --set and --out with a pipeline; a recipe was expected with them. Write the values into its recipes."
        )
    pipeline = load_pipeline(request.recipe_path)
    stages = load_stages(pipeline)
    check_stages(stages, pipeline.path.parent, fresh=request.fresh)
    todo = find_todo(stages, fresh=request.fresh)
    jobs: list[Job] = []
    for stage, _ in todo:
        job = _job(replace(request, recipe_path=stage.recipe_path), stage.recipe, stage.run_dir, resources)
        jobs.append(replace(job, needs=(len(jobs) - 1,) if jobs else ()))
    done = [stage.run_dir for stage in stages if stage not in [one for one, _ in todo]]
    if jobs or push is not None:
        # All stages are done by then: this writes results.json and the study's page, and publishes.
        command = ["run", str(request.recipe_path), *(["--push", push] if push is not None else [])]
        last = stages[-1].run_dir
        jobs.append(make_command_job("results", command, last, resources, [len(jobs) - 1] if jobs else []))
    return Chain(tuple(jobs), tuple(stage.run_dir for stage, anew in todo if anew), tuple(done))


def find_todo(stages: Sequence[Stage], *, fresh: bool = False) -> list[tuple[Stage, bool]]:
    """The stages that are to be run, and whether each is made anew: its folder holds a run that began from something else.

    A stage is done only as long as none of its parents is run again.
    """
    todo: list[tuple[Stage, bool]] = []
    running: set[Path] = set()
    for stage in stages:
        action = judge_stage(stage).action
        from_running = any(_is_in(name, running) for _, name in named_parents(stage.recipe))
        if action == "done" and not from_running and not fresh:
            continue
        todo.append((stage, fresh or action == "anew" or (from_running and action in ("done", "resume"))))
        running.add(stage.run_dir.resolve())
    return todo


def _is_in(name: str, folders: set[Path]) -> bool:
    path = Path(name).expanduser().resolve()
    return bool(folders & {path, *path.parents})


def _job(request: TrainRequest, recipe: Recipe, run_dir: Path, resources: Resources) -> Job:
    return make_train_job(request, run_dir, resources, uses_gpu=recipe.stage not in _WITHOUT_MODEL)
