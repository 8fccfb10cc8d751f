"""A wheel, installed into an environment of its own, does everything from an empty folder."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
BUILT_FROM = (
    "src",
    "recipes",
    "accelerate_configs",
    "constraints",
    "setup.py",
    "pyproject.toml",
    "MANIFEST.in",
    "README.md",
    "LICENSE",
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the sources, so that the checkout stays as it is."""
    copy, out = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in BUILT_FROM:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=ignored)
        elif (ROOT / name).is_file():
            shutil.copy2(ROOT / name, copy / name)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(out),
        str(copy),
    ]
    subprocess.run(command, check=True, timeout=300)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin/ of an environment that holds the wheel, and the dependencies of this one by a path file."""
    folder = tmp_path_factory.mktemp("bare") / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=120)
    python = folder / "bin" / "python"
    (site,) = folder.glob("lib/python*/site-packages")
    # Path files in a folder that a path file adds are not read, so the editable install here stays out of it.
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    command = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        str(wheel),
    ]
    subprocess.run(command, check=True, timeout=120)
    return folder / "bin"


def call(bare: Path, cwd: Path, *command: str) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    program = [str(bare / command[0]), *command[1:]]
    return subprocess.run(program, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_the_wheel_carries_recipes_configs_templates_and_the_schema(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "alignment/recipes/zephyr-7b/sft.yaml", "alignment/recipes/README.md", "alignment/recipes/quickstart/make_world.py",
        "alignment/recipes/tulu3-8b/tulu.jinja", "alignment/accelerate_configs/zero3.yaml", "alignment/data/templates/chatml.jinja",
        "alignment/recipe/recipe.schema.json", "alignment/report/style.css",
    } <= names  # fmt: skip
    assert not [name for name in names if name.endswith(".jsonl") or "tests" in name]


def test_everything_works_from_an_empty_folder(bare: Path, tmp_path: Path) -> None:
    package = call(bare, tmp_path, "python", "-c", "import alignment; print(alignment.__file__)")
    assert str(bare.parent) in package.stdout
    for command in (
        ("alignment", "new", "my-study", "--from", "zephyr-7b"),
        ("alignment", "check", "my-study"),
        ("alignment", "new", "world", "--from", "quickstart"),
        ("python", "world/make_world.py"),
        ("alignment", "curate", "world/curate.yaml"),
        ("alignment", "train", "world/tokenizer.yaml"),
        ("alignment", "train", "world/pretrain.yaml", "--set", "train.max_steps=2", "--set", "train.warmup_steps=0", "--set", "eval.num_samples=1"),
        ("alignment", "chat", "runs/world/pretrain", "--prompt", "Hello", "--max_new_tokens", "4"),
    ):  # fmt: skip
        done = call(bare, tmp_path, *command)
        assert done.returncode == 0, (command, done.stderr[-1500:])
    assert (tmp_path / "my-study" / "sft.yaml").read_text().startswith("# from zephyr-7b/sft @ ")
    assert "runs/my-study/sft/final" in (tmp_path / "my-study" / "dpo.yaml").read_text()
    found = call(
        bare, tmp_path, "python", "-c",
        "from pathlib import Path; from alignment.launch.configs import find_config; print(find_config('zero3', Path('my-study/sft.yaml')).path)",
    )  # fmt: skip
    assert found.stdout.strip().endswith("alignment/accelerate_configs/zero3.yaml")


def test_a_name_that_is_not_in_the_gallery_gets_the_nearest(bare: Path, tmp_path: Path) -> None:
    refused = call(bare, tmp_path, "alignment", "new", "mine", "--from", "zefyr-7b")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "Did you mean 'zephyr-7b'?" in refused.stderr
