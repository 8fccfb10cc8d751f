"""One process's part of a stage: the run folder, the prepared rows, then the stage itself.

Rank 0 decides whether there is anything to do and says so in a file, since no process group exists yet; the other ranks
wait for it. Preparing needs no group either: every rank asks for the same folder, and one of them makes it.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from alignment.errors import AlignmentError, LaunchError, LostRankError, RecipeError
from alignment.launch.environment import LaunchEnvironment, settle_environment
from alignment.launch.imports import import_stages
from alignment.launch.request import TrainRequest
from alignment.recipe.loader import load_recipe
from alignment.recipe.schema import Recipe
from alignment.train.heartbeat import Hang
from alignment.train.run_folder import clear, judge_run, locked, prepared_folder, write_exit, write_start
from alignment.train.stopping import StopRequest, listening

logger = logging.getLogger("alignment")
REFUSED = "refused"
INTERRUPTED = 130  # 128 + SIGINT, as the command line reports it
WAIT_SECONDS = 600
_POLL_SECONDS = 0.1


def run_worker(request: TrainRequest) -> int:
    """Does this process's part and returns the exit code of the command. Every rank calls it.

    A refusal is said on rank 0 (by others with their rank before it) and written to exit.json; anything else that is
    raised is a defect and keeps its traceback.
    """
    environment = settle_environment()
    set_up_logging(environment.rank)
    try:
        with listening() as stop:
            return _work(request, request.run_dir, environment, stop)
    except AlignmentError as error:
        print(f"rank {environment.rank}: {error}" if environment.rank else str(error), file=sys.stderr, flush=True)
        return error.code


def _work(request: TrainRequest, run_dir: Path, environment: LaunchEnvironment, stop: StopRequest) -> int:
    recipe = load_recipe(request.recipe_path, request.overrides)
    if environment.rank != 0:
        verdict = _wait_for_verdict(run_dir, environment)
        if verdict in ("new", "resume"):
            _run(recipe, request, run_dir, environment, stop)
        return 0 if verdict != REFUSED else RecipeError.code
    with contextlib.ExitStack() as stack:
        if request.fresh:
            clear(run_dir)
        stack.enter_context(locked(run_dir))
        try:
            verdict = judge_run(recipe, run_dir)
        except AlignmentError:
            _say_verdict(run_dir, environment, REFUSED)
            raise
        _say_verdict(run_dir, environment, verdict)
        if verdict == "done":
            logger.info("%s: finished already", run_dir)
            return 0
        with noting_the_end(request, run_dir):
            _run(recipe, request, run_dir, environment, stop)
        if environment.world_size > 1:  # all have read it
            _verdict_path(run_dir).unlink(missing_ok=True)
        logger.info("%s: done", run_dir)
    return 0


@contextlib.contextmanager
def noting_the_end(request: TrainRequest, run_dir: Path) -> Iterator[None]:
    """Writes exit.json however the work inside ends. Only the holder of the lock may: a refused command changes nothing."""
    code, reason, lost = 1, "a defect of alignment: see the traceback", False
    try:
        yield
        code, reason = 0, "done"
    except AlignmentError as error:
        code, reason, lost = error.code, str(error), isinstance(error, LostRankError)
        raise
    except KeyboardInterrupt:
        code, reason = INTERRUPTED, "interrupted from the keyboard"
        raise
    finally:
        write_exit(run_dir, code, reason, request.resume_command if code else "", lost=lost)


def _run(
    recipe: Recipe, request: TrainRequest, run_dir: Path, environment: LaunchEnvironment, stop: StopRequest
) -> None:
    import_stages([recipe.stage])
    from alignment.launch.check import check_launch
    from alignment.train.context import StageContext
    from alignment.train.memory import BatchTooLarge, free_memory
    from alignment.train.prepare import prepare_run
    from alignment.train.stages import run_stage

    begun = time.perf_counter()
    quiet_libraries()
    prepared = None  # a curation reads its files itself
    if recipe.stage != "curate":
        prepared = prepare_run(recipe, request.recipe_path.resolve().parent, run_dir, prepared_folder(run_dir))
    if environment.rank == 0:
        write_start(run_dir, recipe, prepared.manifest if prepared else {})
    context = StageContext(
        recipe_path=request.recipe_path,
        run_dir=run_dir,
        prepared_folder=prepared.folder if prepared else None,
        rank=environment.rank,
        world_size=environment.world_size,
        cpu=environment.cpu,
        strategy=environment.strategy,
        report_to=request.report_to,
        command=request.command,
        prepare_seconds=time.perf_counter() - begun,
        check_launch=lambda trainer: check_launch(trainer, environment),
        stop=stop,
        supervised=environment.supervised,
        on_hang=lambda hang: _end_hung(hang, request, run_dir),
    )
    while True:
        try:
            return run_stage(recipe, context)
        except BatchTooLarge as error:
            if environment.world_size > 1:  # other ranks wait in this one's collectives: who started them starts anew
                raise
            logger.warning("%s", error)
        except RuntimeError as error:
            # A launcher of ours that has all ranks below it knows better which of them was lost.
            is_watched = environment.supervised and environment.num_machines == 1
            lost = None if is_watched else _lost_peer(error, run_dir, environment)
            if lost is None:
                raise
            raise lost from error
        free_memory()


def _lost_peer(error: RuntimeError, run_dir: Path, environment: LaunchEnvironment) -> LostRankError | None:
    """The end of a rank that others left in the midst of a collective; None where the error is another one."""
    import torch

    # gloo has no class of its own for it.
    if not isinstance(error, torch.distributed.DistError) and "gloo/transport" not in str(error):
        return None
    found = re.sub(r"^\[\S*\] ", "", re.split(r"\. |\n", str(error))[0])[:120]
    return LostRankError(
        f"{run_dir}: rank {environment.rank} lost the others in step, or the network to them ({found}); {environment.world_size} ranks "
        f"on {environment.num_machines} machines were expected to the end. See which of them ended first; the same command goes on "
        "from the last checkpoint."
    )


def _end_hung(hang: Hang, request: TrainRequest, run_dir: Path) -> NoReturn:
    """Ends this process from the thread that found the hang."""
    print(hang, file=sys.stderr, flush=True)
    write_exit(run_dir, LaunchError.code, str(hang), request.resume_command, lost=True)
    os._exit(LaunchError.code)


# ------------------------------------------------------------------------------------------------ verdict


def _verdict_path(run_dir: Path) -> Path:
    """Named after this launch, so that what an earlier one left is not read.

    A launcher's variables may be the same each time, so where all ranks say that they are on one machine the process that started them
    counts too. On several machines nothing tells two launches with the same port apart: there a word of the last `WAIT_SECONDS` is
    believed, unless its run ended well.
    """
    names = ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT")
    launch = "\n".join(os.environ.get(name, "") for name in names)
    if os.environ.get("LOCAL_WORLD_SIZE") == os.environ.get("WORLD_SIZE"):
        launch += f"\n{os.getppid()}"
    return run_dir / f".launch-{hashlib.sha256(launch.encode()).hexdigest()[:12]}.json"


def _say_verdict(run_dir: Path, environment: LaunchEnvironment, verdict: str) -> None:
    for left in run_dir.glob(".launch-*.json"):
        left.unlink()
    if environment.world_size > 1:
        path = _verdict_path(run_dir)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps({"verdict": verdict, "time": time.time()}), encoding="utf-8")
        temporary.rename(path)


def _wait_for_verdict(run_dir: Path, environment: LaunchEnvironment) -> str:
    begun = time.time()
    path = _verdict_path(run_dir)
    while time.time() - begun < WAIT_SECONDS:
        with contextlib.suppress(FileNotFoundError):  # not there yet, or one of an earlier launch that is being removed
            said = json.loads(path.read_text(encoding="utf-8"))
            if said["time"] > begun - WAIT_SECONDS:
                return said["verdict"]
        time.sleep(_POLL_SECONDS)
    raise LaunchError(
        f"{run_dir}: rank {environment.rank} waited {WAIT_SECONDS} s for rank 0; a word of it in {path.name} was expected. "
        "Look at the output of rank 0, and whether all ranks see this folder."
    )


def set_up_logging(rank: int) -> None:
    """Our own lines on rank 0; the libraries only when something is wrong."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(logging.INFO if rank == 0 else logging.WARNING)


def quiet_libraries() -> None:
    """Their progress bars and advice would tear our own lines apart; what is wrong they still say."""
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("accelerate").setLevel(logging.ERROR)
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module="torch|peft|transformers|accelerate")
