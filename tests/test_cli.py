"""The command line: fast, exact names, one exit code a kind of end."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from alignment import __version__, cli
from alignment.cli import COMMANDS, main
from alignment.errors import ArtifactError, DataError, RecipeError

ROOT = Path(__file__).parent.parent
RECIPE = ROOT / "tests" / "acceptance" / "dpo-demo.yaml"


def run_command(*arguments: str, **kwargs) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "alignment", *arguments], cwd=ROOT, capture_output=True, text=True, check=False, **kwargs
    )


def cpu_seconds(*arguments: str) -> float:
    """Of the whole process, the best of three: what it takes on a machine that does nothing else."""
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert run_command(*arguments).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(seconds)


def fake_command(monkeypatch: pytest.MonkeyPatch, run) -> None:
    module = type(sys)("fake_command")
    module.add_arguments = lambda parser: parser.add_argument("--number", type=int, default=0)
    module.run = run
    monkeypatch.setitem(sys.modules, "fake_command", module)
    monkeypatch.setitem(cli.COMMANDS, "fake", ("fake_command", "does what the test says"))


def test_help_comes_within_half_a_second() -> None:
    assert cpu_seconds("--help") < 0.5


def test_check_answers_within_a_second() -> None:
    assert cpu_seconds("check", str(RECIPE), "--resolved") < 1.0


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["check", str(RECIPE)],
        ["check", "--resolved", "tests/acceptance"],
        ["new", "--help"],
        ["train", "--help"],
    ],
)
def test_torch_is_not_imported_before_it_is_needed(arguments: list[str]) -> None:
    code = (
        "import sys; from alignment.cli import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit: pass\n"
        "print({name for name in ('torch', 'transformers', 'datasets', 'pyarrow') if name in sys.modules}, file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stderr.splitlines()[-1] == "set()"


def test_every_command_has_the_two_functions_and_help(capsys: pytest.CaptureFixture) -> None:
    for name in COMMANDS:
        with pytest.raises(SystemExit) as ended:
            main([name, "--help"])
        assert ended.value.code == 0
        assert capsys.readouterr().out.startswith(f"usage: alignment {name}")


def test_help_names_every_command_and_version_is_the_packages(capsys: pytest.CaptureFixture) -> None:
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"\n  {name}" in said for name in COMMANDS)
    assert main([]) == 0
    assert capsys.readouterr().out == said
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"alignment {__version__}\n"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["chek", "a"], "alignment: no command 'chek'. Did you mean 'check'?"),
        (["tra", "a"], "no command 'tra'. Did you mean 'train'?"),
        (["--hepl"], "no command '--hepl'. Known: check,"),
        (["check", "a", "--resolv"], "alignment check: no option '--resolv'. Did you mean '--resolved'?"),
        (["check", "a", "--sett=b"], "no option '--sett'. Did you mean '--set'?"),
        (["check", "a", "--xyz"], "no option '--xyz'. Known: "),
        (["check"], "the following arguments are required: RECIPE|PIPELINE|FOLDER"),
        (["check", "a", "--set"], "argument --set: expected one argument"),
        (["check", "a", "--", "b"], "nothing may stand behind ' -- '"),
        (["report"], "required"),
        (["train", "a", "--accelerate_confi", "x"], "Did you mean '--accelerate_config'?"),
        (["train", "a", "--report_to", "wand"], "invalid choice: 'wand'"),
        (["train", "a", "b"], "'b'"),
        (["new", "a", "b", "--from", "c"], "one argument too many: 'b'"),
    ],
)
def test_wrong_usage_is_one_message_and_exit_code_2(argv: list[str], said: str, capsys: pytest.CaptureFixture) -> None:
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.out == ""
    assert "Traceback" not in captured.err


def test_what_stands_behind_two_dashes_is_for_accelerate(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("alignment.commands.train.run", lambda args: seen.append(args) or 0)
    argv = ["train", "r.yaml", "--set", "a.b=1", "--fresh", "--", "--main_process_port", "0", "--", "--help"]
    assert main(argv) == 0
    assert list(seen[0].accelerate_args) == ["--main_process_port", "0", "--", "--help"]
    assert (seen[0].overrides, seen[0].fresh) == (["a.b=1"], True)
    assert main(["train", "r.yaml"]) == 0
    assert list(seen[1].accelerate_args) == []


@pytest.mark.parametrize(
    ("error", "code"),
    [(RecipeError("r.yaml: wrong."), 2), (DataError("row 3: empty."), 3), (ArtifactError("final/: differs."), 7)],
)
def test_a_refusal_is_its_message_and_its_code(error, code, monkeypatch, capsys) -> None:
    def run(args):
        raise error

    fake_command(monkeypatch, run)
    assert main(["fake"]) == code
    assert capsys.readouterr().err == f"{error}\n"


def test_the_command_decides_its_own_code(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_command(monkeypatch, lambda args: args.number)
    assert main(["fake", "--number", "75"]) == 75


def test_an_interrupt_is_130_without_a_traceback(monkeypatch, capsys) -> None:
    def run(args):
        raise KeyboardInterrupt

    fake_command(monkeypatch, run)
    assert main(["fake"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_defect_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(args):
        raise ValueError("a defect")

    fake_command(monkeypatch, run)
    with pytest.raises(ValueError, match="a defect"):
        main(["fake"])


def test_a_reader_that_goes_away_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        ended = subprocess.run(
            [sys.executable, "-m", "alignment", "check", str(RECIPE), "--resolved"],
            cwd=ROOT,
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert ended.returncode == 141
    assert ended.stderr == ""


def test_the_process_ends_with_the_code() -> None:
    assert run_command("check", "nothing.yaml").returncode == 2
