"""Imports run one way, and heavy libraries stay where they belong."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "alignment"
ORDER = [
    "errors", "recipe", "gallery", "data", "convert", "curate", "models", "measure", "report", "train", "hub", "launch",
    "plan", "commands", "cli",
]  # fmt: skip
MODULES = sorted(SOURCE.rglob("*.py"))


def imported_names(path: Path) -> list[str]:
    """Dotted names of every import of a file, also those inside functions."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def room(parts: tuple[str, ...]) -> str:
    return parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_room_imports_only_rooms_before_it(path: Path) -> None:
    own = room(path.relative_to(SOURCE).parts)
    if own in ("__init__", "__main__"):
        return
    for name in imported_names(path):
        if not name.startswith("alignment."):
            continue
        other = name.split(".")[1]
        if other in ORDER:
            assert ORDER.index(other) <= ORDER.index(own), f"{path.name} ({own}) imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_stage_never_imports_another_stage(path: Path) -> None:
    if path.parent.name == "stages" and path.name != "__init__.py":
        assert not [name for name in imported_names(path) if name.startswith("alignment.train.stages")]


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        ("trl", lambda path: "trl_bridge" in path.parts),
        ("peft", lambda path: path.name in ("lora.py", "verify.py")),
        ("deepspeed", lambda path: path.name in ("deepspeed.py", "ranks.py")),
    ],
)
def test_a_library_that_moves_is_imported_in_one_place(library: str, allowed) -> None:
    users = [
        str(path.relative_to(SOURCE))
        for path in MODULES
        if any(name.split(".")[0] == library for name in imported_names(path)) and not allowed(path)
    ]
    assert users == []


def test_experimental_trl_is_never_imported() -> None:
    for path in MODULES:
        assert not [name for name in imported_names(path) if name.startswith("trl.experimental")], path
