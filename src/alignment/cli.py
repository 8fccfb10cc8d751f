"""The `alignment` command line: finds the command, imports its module and turns every refusal into its exit code.

A command is a module of `alignment.commands` with `add_arguments(parser)` and `run(args) -> int`; it is imported only when
it is the one that runs. Nothing is ever abbreviated.
"""

import argparse
import difflib
import importlib
import os
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

from alignment import __version__
from alignment.errors import AlignmentError, RecipeError

# name: (module, what it does)
COMMANDS: dict[str, tuple[str, str]] = {
    "check": ("alignment.commands.check", "every mistake of recipes and pipelines at once"),
    "preview": ("alignment.commands.preview", "the mixture, and rows with what is trained on in colour"),
    "prepare": ("alignment.commands.prepare", "mix, tokenise and pack the rows of a recipe, on the CPU"),
    "curate": ("alignment.commands.curate", "raw rows to clean rows, each removed one with its reason"),
    "plan": ("alignment.commands.plan", "memory by phase, steps, tokens, hours and cost, before it is queued"),
    "rehearse": (
        "alignment.commands.rehearse",
        "a recipe, shrunken, for real on CPU ranks: train, kill, resume, reload",
    ),
    "train": ("alignment.commands.train", "one stage, whichever the recipe names; the same command resumes it"),
    "run": ("alignment.commands.run", "the stages of a pipeline in order; done ones are skipped"),
    "submit": ("alignment.commands.submit", "a recipe as a SLURM job, a pipeline as a chain of jobs"),
    "doctor": ("alignment.commands.doctor", "whether these machines can run it, before any model loads"),
    "search": ("alignment.commands.search", "test-time scaling: what choosing among several completions gains"),
    "chat": ("alignment.commands.chat", "talk to the model of a run"),
    "report": ("alignment.commands.report", "write the pages of runs and studies anew"),
    "merge": ("alignment.commands.merge", "an adapter-only run into a whole model, compared before it is written"),
    "push": ("alignment.commands.push", "publish the verified result of a run on the Hub"),
    "reproduce": ("alignment.commands.reproduce", "what made a run or a published model, as a study to run again"),
    "new": ("alignment.commands.new", "copy a recipe or a study to start from"),
    "import": ("alignment.commands.import_", "a recipe of alignment-handbook, TRL, LLaMA-Factory or axolotl as ours"),
}
INTERRUPTED = 130  # 128 + SIGINT, as shells report it
PIPE_CLOSED = 141  # 128 + SIGPIPE


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code. A refusal goes to stderr in one message, without a traceback."""
    try:
        code = _run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return code
    except AlignmentError as error:
        print(error, file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader went away, as `head` does; Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED


def _run(argv: list[str]) -> int:
    name = argv[0] if argv else "--help"
    if name in ("-h", "--help"):
        print(_overview())
        return 0
    if name == "--version":
        print(f"alignment {__version__}")
        return 0
    if name not in COMMANDS:
        raise RecipeError(f"alignment: no command '{name}'. {_nearest(name, COMMANDS, ', '.join(COMMANDS))}")
    module = importlib.import_module(COMMANDS[name][0])
    parser = _Parser(prog=f"alignment {name}", description=COMMANDS[name][1], allow_abbrev=False)
    module.add_arguments(parser)
    return module.run(_parse(parser, argv[1:]))


def _parse(parser: "_Parser", argv: list[str]) -> argparse.Namespace:
    """The arguments of a command; what stands behind `--` goes to `accelerate_args` of a command that has it."""
    split = argv.index("--") if "--" in argv else len(argv)
    args, unknown = parser.parse_known_args(argv[:split])
    if unknown:
        options = sorted(set(re.findall(r"(?<![\w-])--?[a-z]\w*", parser.format_help())))
        given = unknown[0].partition("=")[0]
        if given.startswith("-"):
            parser.error(f"no option '{given}'. {_nearest(given, options, ', '.join(options))}")
        parser.error(f"one argument too many: '{given}'. Remove it, or put quotes around text with spaces.")
    takes_rest = hasattr(args, "accelerate_args")
    if takes_rest and args.accelerate_args:
        parser.error(
            f"'{args.accelerate_args[0]}' is one argument too many. Arguments of accelerate stand behind ' -- '."
        )
    if split < len(argv) and not takes_rest:
        parser.error("nothing may stand behind ' -- '. Remove it.")
    if takes_rest:
        args.accelerate_args = argv[split + 1 :]
    return args


class _Parser(argparse.ArgumentParser):
    """Usage errors are refusals like any other: one message, exit code 2."""

    def error(self, message: str) -> NoReturn:
        raise RecipeError(f"{self.prog}: {message} See '{self.prog} --help'.")


def _nearest(name: str, known: Sequence[str] | dict, everything: str) -> str:
    near = difflib.get_close_matches(name, known, 1, 0.5)
    return f"Did you mean '{near[0]}'?" if near else f"Known: {everything}."


def _overview() -> str:
    rows = "\n".join(f"  {name:<9} {help_line}" for name, (_, help_line) in COMMANDS.items())
    return (
        "usage: alignment COMMAND ... | --version\n\n"
        "Recipes that carry a language model from raw text to an aligned model.\n\n"
        f"{rows}\n\n"
        "alignment COMMAND --help says what a command takes.\n"
        "Exit codes: 0 done, 2 recipe or usage, 3 data, 4 diverged, 5 environment, 6 publish, 7 verification, 75 stopped."
    )
