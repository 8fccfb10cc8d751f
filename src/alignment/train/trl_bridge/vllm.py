"""vLLM as the engine that samples for PPO, through TRL's VLLMGeneration (TRL 1.16), which sends it the weights.

Not run on a GPU yet: what is held by tests is the contract that its completions must keep (train/ppo/samplers.py), on an engine of
transformers. Sampling in vLLM is seeded by its own state, so a resumed run goes on with other completions of the same policy.
"""

import importlib.util
import logging
from collections.abc import Sequence
from typing import Any

import torch
from transformers import Trainer

from alignment.errors import LaunchError
from alignment.recipe.stage_spec import PpoSpec

logger = logging.getLogger(__name__)
DEFAULT_URL = "http://localhost:8000"
DEFAULT_MEMORY = 0.3
UNVERIFIED = "sampling with vLLM was never run on a GPU by this project's tests; look at sampler/logp_gap, which should be near 0.01"


class VLLMEngine:
    """TRL's VLLMGeneration with the policy alone as its model, so that names of weights are those of the checkpoint."""

    def __init__(self, generation: Any) -> None:
        self._generation = generation

    def sync_weights(self) -> None:
        self._generation.sync_weights()

    def generate(self, prompts: Sequence[Sequence[int]], seed: int) -> list[tuple[list[int], list[float]]]:
        _, completions, logps, _ = self._generation.generate([list(ids) for ids in prompts], None, num_generations=1)
        # The sampled token's own entry is the first (and only) one of each position.
        own = [[float("nan") if one[0] is None else float(one[0]) for one in row] for row in logps]
        return list(zip(completions, own, strict=True))


def make_engine(trainer: Trainer, spec: PpoSpec, *, stop_ids: Sequence[int], max_length: int) -> VLLMEngine:
    """The engine that the recipe names.

    Raises:
        LaunchError: vLLM or a GPU is missing.
    """
    if importlib.util.find_spec("vllm") is None:
        raise LaunchError(
            f"ppo.sampler: {spec.sampler}, and vllm is not installed. Install it with `pip install 'alignment[vllm]'`, or write "
            f"sampler: transformers. ({UNVERIFIED}.)"
        )
    if not torch.cuda.is_available():
        raise LaunchError(f"ppo.sampler: {spec.sampler} needs a GPU, and there is none. Write sampler: transformers.")
    from trl.generation.vllm_generation import VLLMGeneration

    logger.warning("ppo.sampler: %s: %s", spec.sampler, UNVERIFIED)
    generation = VLLMGeneration(
        model=trainer.model.policy,
        accelerator=trainer.accelerator,
        processing_class=trainer.processing_class,
        mode=spec.sampler.removeprefix("vllm_"),
        server_base_url=(spec.sampler_url or DEFAULT_URL) if spec.sampler == "vllm_server" else None,
        gpu_memory_utilization=spec.sampler_memory or DEFAULT_MEMORY,
        max_model_length=max_length,
        temperature=spec.temperature,
        top_p=1.0,
        top_k=0,
        max_completion_length=spec.max_new_tokens,
        logprobs=0,
        generation_kwargs={"stop_token_ids": list(stop_ids)},
    )
    return VLLMEngine(generation)
