"""A model that was really trained and published: a stranger with an empty cache loads it with the lines of its card."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from local_hub import TOKEN, LocalHub

from alignment.hub.publish import publish_run
from alignment.models.probe import TOLERANCE, probe_gap

pytestmark = pytest.mark.slow
STUDY = Path(__file__).parents[1] / "train" / "study.py"
PROBE = """
import json
from alignment.models.probe import make_prompts, probe
prompts = make_prompts(model.config.vocab_size, model.config.max_position_embeddings)
print("PROBE" + json.dumps(probe(model.eval(), prompts)))
"""


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """runs/study/sft: LoRA on a model pretrained from its config, merged."""
    spec = importlib.util.spec_from_file_location("tiny_study", STUDY)
    study = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(study)
    monkeypatch.chdir(tmp_path)
    study.write_study(tmp_path)
    study.write_recipe(tmp_path, "sft", study.CHAT.format(lora=study.LORA, steps=4))
    for name in ("tokenizer", "pretrain", "sft"):
        assert study.run(name) == 0
    return tmp_path / "runs" / "study" / "sft"


def test_the_lines_of_the_card_give_the_model_of_the_receipt(
    trained: Path, hub: LocalHub, api: HfApi, tmp_path: Path
) -> None:
    publish_run(trained, "org/name", api=api, pause=lambda _: None)
    files = hub.repositories["org/name"].files()
    assert {"lineage/pretrain.yaml", "lineage/tokenizer.yaml", "chat_template.jinja"} <= set(files)
    text = b"".join(blob.data for name, blob in files.items() if not name.endswith(".safetensors")).decode()
    assert str(tmp_path) not in text
    lines = re.search(r"```python\n(.*?)```", files["README.md"].data.decode(), re.DOTALL)[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": TOKEN,
        "HF_HOME": str(tmp_path / "empty"),
        "HF_HUB_DISABLE_XET": "1",
    }
    stranger = tmp_path / "elsewhere"
    stranger.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", lines + PROBE],
        cwd=stranger,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    seen = json.loads(done.stdout.partition("PROBE")[2])
    expected = json.loads((trained / "receipt.json").read_text())["probe"]
    assert probe_gap(expected, seen) <= TOLERANCE["float32"]
    said = subprocess.run(
        [sys.executable, "-m", "alignment", "chat", "org/name", "--prompt", "Where is Arda?", "--max_new_tokens", "3"],
        cwd=stranger, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr[-2000:]
