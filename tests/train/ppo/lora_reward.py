"""A reward run that was LoRA on the toy's start model, as its folder looks: adapter/, final/ with all weights, a recipe."""

import shutil
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from alignment.models.build import make_reward_model
from alignment.models.load import resolve_start
from alignment.models.lora import add_adapter, merge_put_adapter, save_adapter
from alignment.recipe.model_spec import LoraSpec


def write_lora_reward(toy: Path, name: str = "lora_reward") -> Path:
    """Writes the run beside start/ and returns its folder."""
    folder = toy / name
    torch.manual_seed(6)
    model = make_reward_model(AutoModelForCausalLM.from_pretrained(toy / "start"))
    with torch.no_grad():
        model.score.weight.normal_(std=0.3)
    model = add_adapter(model, LoraSpec(r=3, lora_alpha=6), "reward")
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "lora_B" in parameter_name:
                parameter.normal_(std=0.1)
    (folder / "adapter").mkdir(parents=True)
    save_adapter(model, folder / "adapter", resolve_start(str(toy / "start")))
    merge_put_adapter(model, torch.float32).save_pretrained(folder / "final")
    (folder / "recipe.yaml").write_text("stage: reward\n")
    for path in (*(toy / "start").glob("*token*"), toy / "start/chat_template.jinja"):
        shutil.copy2(path, folder / "final" / path.name)
    return folder
