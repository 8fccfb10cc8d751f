"""Packaging. Every dependency has a closed range; `constraints/` holds the exact versions that were tested."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
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
    "curate": ["datatrove>=0.10,<0.11"],
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
    package_data={"alignment": ["data/templates/*.jinja", "recipe/*.json", "report/*.css"]},
    install_requires=REQUIRED,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["alignment=alignment.cli:main"]},
)
