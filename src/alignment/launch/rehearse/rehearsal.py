"""A rehearsal from the recipe to what was proven: inputs stood in for, rows prepared, trained, killed, resumed, verified.

Each step either holds, or ends the rehearsal with the exit code that the real command would have had. What cannot be
tried on this machine is listed with its reason, and is no failure.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from alignment.errors import AlignmentError, ArtifactError, LaunchError, RecipeError
from alignment.launch.configs import LaunchConfig, find_config
from alignment.launch.environment import is_offline
from alignment.launch.rehearse.build import RECIPE, Built, build, read_built
from alignment.launch.rehearse.shrink import RANKS, Remark, plan_steps
from alignment.launch.rehearse.stage import compare_steps, in_one_process, launch, read_steps, read_times
from alignment.launch.request import TrainRequest
from alignment.launch.worker import INTERRUPTED
from alignment.recipe.loader import load_recipe
from alignment.recipe.resolved import recipe_text
from alignment.recipe.schema import Recipe
from alignment.report.receipt import read_receipt
from alignment.report.run_files import read_json
from alignment.train.run_folder import judge_run

FOLDER = "rehearsals"
RESULT = "rehearsal.json"
PREVIEW = "preview.json"
RUN = "run"  # in the rehearsal's folder
SAME = 1e-6  # losses of a resumed run; on one machine and as many ranks they have always been the same to the last bit
_TRIES = 3
_ONE_PROCESS = ("tokenizer", "evaluate")
NO_GPU = Remark("memory, speed and kernels of GPUs", "this was a tiny model on CPUs")
State = Literal["proven", "failed", "not reached", "not proven"]


@dataclass(frozen=True)
class Step:
    """One line of the table."""

    name: str
    state: State
    detail: str


@dataclass
class Rehearsal:
    """What was tried and how it ended."""

    recipe_path: Path
    stage: str
    strategy: str
    folder: Path
    steps: list[Step] = field(default_factory=list)
    stand_ins: tuple[str, ...] = ()
    remarks: tuple[Remark, ...] = ()
    findings: tuple[str, ...] = ()  # of the preview
    code: int = 0
    seconds: float = 0.0
    original: str = ""  # resolved recipe
    rehearsed: str = ""


def rehearse(
    recipe_path: Path, *, accelerate_config: str | None = None, out: Path | None = None, overrides: tuple[str, ...] = ()
) -> Rehearsal:
    """Rehearses one recipe.

    Args:
        accelerate_config: name or path of a launcher config; None: ddp.
        out: folder of the rehearsal; None: rehearsals/STUDY/RECIPE in the current folder.

    Raises:
        RecipeError: the recipe has mistakes, or is one that has nothing to rehearse; the folder is something else's.
    """
    recipe = load_recipe(recipe_path, overrides)
    if recipe.stage == "curate":
        raise RecipeError(
            f"{recipe_path}: a curation has nothing to rehearse: it trains nothing, starts no ranks, and runs on this machine as it is. "
            "Try it on a folder of a few files: alignment curate RECIPE --out DIR."
        )
    config = None if recipe.stage in _ONE_PROCESS else find_config(accelerate_config or "ddp", recipe_path)
    folder = out or Path(FOLDER) / recipe_path.resolve().parent.name / recipe_path.stem
    _clear(folder)
    strategy = config.strategy if config else "one process"
    result = Rehearsal(recipe_path, recipe.stage, strategy, folder, original=recipe_text(recipe))
    begun = time.perf_counter()
    online = None if is_offline() else dict(os.environ)
    with _prepared_process(recipe):
        _Rehearser(recipe, config, result, online).run()
    result.seconds = time.perf_counter() - begun
    return result


def _clear(folder: Path) -> None:
    """Empties the folder of an earlier rehearsal, and touches no other."""
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / RESULT).is_file():
            raise RecipeError(
                f"{folder}: not a folder of an earlier rehearsal; an empty one was expected. Give another --out."
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RESULT).write_text("{}\n", encoding="utf-8")


@contextmanager
def _prepared_process(recipe: Recipe) -> Iterator[None]:
    """Imports once what the ranks need. No network for them: what is not on this disk is stood in for."""
    before = dict(os.environ)
    # No GPU either, from before the first look at one: a process that has looked cannot fork ranks that do.
    os.environ.update(
        HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false", CUDA_VISIBLE_DEVICES=""
    )
    from alignment.launch.ranks import preload

    try:
        preload([recipe.stage])
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


class _Rehearser:
    """The steps of one rehearsal, in order."""

    def __init__(
        self, recipe: Recipe, config: LaunchConfig | None, result: Rehearsal, online: Mapping[str, str] | None
    ) -> None:
        self.recipe, self.config, self.result, self.online = recipe, config, result, online
        self.folder, self.run_dir, self.log = result.folder, result.folder / RUN, result.folder / "rehearsal.log"
        self.num_processes = RANKS if config else 1
        self.built = Built((), ())

    def run(self) -> None:
        steps: list[tuple[str, Callable[[], str]]] = [
            ("stand-ins are made", self._build),
            ("rows are prepared and previewed", self._prepare),
        ]
        if self.config is None:
            steps += [("runs in one process", self._run_alone)]
        else:
            steps += [
                (f"trains under {self.config.strategy} on {RANKS} ranks", self._train),
                ("goes on after SIGKILL", self._resume),
            ]
        if self.recipe.stage == "tokenizer":
            steps += [("the result is read back", lambda: "the same ids, and texts come back from them")]
        elif self.recipe.stage != "evaluate":
            steps += [("the result reloads in a fresh process", self._read_back)]
        steps += [("receipt, card and page", self._read_pages)]
        for number, (name, step) in enumerate(steps):
            try:
                self.result.steps.append(Step(name, "proven", step()))
            except AlignmentError as error:
                self.result.code = error.code
                self.result.steps.append(Step(name, "failed", str(error)))
                self.result.steps += [Step(later, "not reached", "") for later, _ in steps[number + 1 :]]
                return

    # -------------------------------------------------------------------------------------------- before training

    def _build(self) -> str:
        recipe, path, folder, config = self.recipe, self.result.recipe_path, self.folder, self.config
        online = self.online

        def work() -> int:
            build(recipe, path, folder, config, online)
            return 0

        self._check(*in_one_process(work, self.log))
        self.built = read_built(folder)
        self.result.stand_ins, self.result.remarks = self.built.stand_ins, (*self.built.remarks, NO_GPU)
        self.result.rehearsed = (folder / RECIPE).read_text(encoding="utf-8")
        from_hub = f", streamed from the Hub: {', '.join(self.built.streamed)}" if self.built.streamed else ""
        return f"models and tokenizers: {len(self.built.stand_ins)}, rows: {_count_rows(folder)}{from_hub}"

    def _prepare(self) -> str:
        path, run_dir = self.folder / RECIPE, self.run_dir

        def work() -> int:
            from alignment.data.preview import make_preview
            from alignment.train.prepare import load_recipe_tokenizer
            from alignment.train.run_folder import prepared_folder

            recipe = load_recipe(path)
            folders = {"recipe_dir": path.resolve().parent, "cache_dir": prepared_folder(run_dir)}
            preview = make_preview(recipe, load_recipe_tokenizer(recipe), **folders, rows=2)
            facts = {"mixture": preview.mixture, "encode": preview.encode, "findings": preview.findings}
            path.with_name(PREVIEW).write_text(json.dumps(facts, ensure_ascii=False), encoding="utf-8")
            return 0

        self._check(*in_one_process(work, self.log))
        preview = read_json(path.with_name(PREVIEW))
        self.result.findings = tuple(preview["findings"])
        return _describe_rows(preview)

    # -------------------------------------------------------------------------------------------- training

    @property
    def _request(self) -> TrainRequest:
        return TrainRequest(
            self.folder / RECIPE, out=self.run_dir, command=("alignment", "rehearse", str(self.result.recipe_path))
        )

    def _train(self) -> str:
        plan = plan_steps(self.recipe)
        for _ in range(_TRIES):
            ended = launch(self._request, self.config, self.num_processes, self.log, kill_at=plan.killed)
            if not ended.killed:
                self._check(ended.code or LaunchError.code, ended.reason or "it ended before it was killed")
            self.before, self.times = read_steps(self.run_dir), read_times(self.run_dir, plan.checkpoint)
            # Killed inside the last save it would show nothing: there must be steps left to make.
            if max(self.before) < plan.last:
                break
            shutil.rmtree(self.run_dir)
        else:
            raise LaunchError(
                f"{self.run_dir}: {_TRIES} times the ranks came to their end before they were killed. Try once more."
            )
        first, last = self.before[min(self.before)]["loss"], self.before[max(self.before)]["loss"]
        return f"{max(self.before)} steps, loss {first:.4g} to {last:.4g}, processes and sharding as asked"

    def _resume(self) -> str:
        plan = plan_steps(self.recipe)
        ended = launch(self._request, self.config, self.num_processes, self.log)
        self._check(ended.code, ended.reason)
        after = read_steps(self.run_dir)
        if read_times(self.run_dir, plan.checkpoint) != self.times:
            raise ArtifactError(
                f"{self.run_dir}: the second command began anew; it was expected to go on from the checkpoint of step "
                f"{plan.checkpoint}."
            )
        lost = {step: values for step, values in self.before.items() if step > plan.checkpoint}
        if max(after) != plan.last or set(lost) - set(after):
            raise ArtifactError(
                f"{self.run_dir}: steps {sorted(after)} were logged; all up to {plan.last} were expected."
            )
        gap, where = compare_steps(lost, after)
        if gap > SAME:
            raise ArtifactError(
                f"{self.run_dir}: after the checkpoint of step {plan.checkpoint} the resumed run is another one: {where} differs by "
                f"{gap:.2g}; the same numbers were expected."
            )
        steps = ", ".join(map(str, sorted(lost)))
        exactly = "the same to the last digit" if gap == 0 else f"the same within {gap:.1g}"
        return f"checkpoint of step {plan.checkpoint}; steps {steps} made again: {exactly}"

    def _run_alone(self) -> str:
        ended = launch(self._request, None, 1, self.log)
        self._check(ended.code, ended.reason)
        return f"{ended.seconds:.1f} s"

    def _check(self, code: int, reason: str) -> None:
        """Raises what a process that ended with `code` would have raised."""
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        if code != 0:
            kinds = {kind.code: kind for kind in AlignmentError.__subclasses__()}
            raise kinds.get(code, AlignmentError)(f"{reason} (all that was said: {self.log})")

    # -------------------------------------------------------------------------------------------- the result

    def _read_back(self) -> str:
        receipt = read_receipt(self.run_dir)
        if judge_run(load_recipe(self.folder / RECIPE), self.run_dir) != "done":
            raise ArtifactError(f"{self.run_dir}: the same command would run again; a finished run was expected.")
        return (
            f"fixed prompts score alike, greatest difference {receipt['reload_gap']:.1g}; the same command is a no-op"
        )

    def _read_pages(self) -> str:
        missing = [name for name in ("receipt.json", "README.md", "report.html") if not (self.run_dir / name).is_file()]
        if missing:
            raise ArtifactError(
                f"{self.run_dir}: {', '.join(missing)} was not written; it was expected of every finished run."
            )
        return str(self.run_dir / "README.md")


def _count_rows(folder: Path) -> int:
    return sum(len(file.read_text(encoding="utf-8").splitlines()) for file in (folder / "data").glob("*.jsonl"))


def _describe_rows(preview: dict[str, Any]) -> str:
    """What became of the rows of each split."""
    parts = []
    for split, report in preview["encode"].items():
        rows = [row for row in preview["mixture"] if row["split"] == split]
        seen, trained = (sum(row.get(name) or 0 for row in rows) for name in ("tokens", "trained_tokens"))
        dropped = sum(report.get("dropped", {}).values())
        said = f"{split}: {report['kept']} rows" + f" ({dropped} dropped)" * bool(dropped)
        said += f", {seen} tokens" * bool(seen) + f", {trained} of them trained on" * bool(trained)
        parts.append(said)
    return "; ".join(parts)
