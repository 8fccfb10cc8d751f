"""Policy and critic as one module with one forward, so that DDP, ZeRO and FSDP2 wrap and step both.

Whatever is asked of either goes through `forward`: engines that deal out weights gather them there. Rows are padded on the right, so
positions are those of a row alone; which tokens count is told by lengths and never by token ids, so a pad token that equals
the stop token changes nothing. Logits are made for generated tokens only.

Shapes: B rows, T positions, H hidden, V vocabulary, N generated tokens of all rows, row after row.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from alignment.measure.batches import inner_model
from alignment.models.dropout import disable_dropout
from alignment.models.lora import adapters_off


class ActorCritic(nn.Module):
    """The policy and the critic that are trained together.

    Args:
        reward: a frozen reward model on the same base, so that engines that deal out weights gather them for it too.
    """

    def __init__(self, policy: PreTrainedModel, critic: PreTrainedModel, reward: PreTrainedModel | None = None) -> None:
        super().__init__()
        self.policy, self.critic = policy, critic
        if reward is not None:
            self.reward = reward
        self.config = policy.config  # DeepSpeed's `auto` fields are filled from it
        disable_dropout(self)

    def forward(self, task: str, **inputs: Any) -> Any:
        """Does one of TASKS."""
        return TASKS[task](self, **inputs)

    # What transformers' Trainer and accelerate ask of a model.

    @property
    def _no_split_modules(self) -> list[str]:
        """Classes of the layers that FSDP2 shards one by one."""
        return sorted({*inner_model(self.policy)._no_split_modules, *inner_model(self.critic)._no_split_modules})

    def gradient_checkpointing_enable(self, **arguments: Any) -> None:
        for part in (self.policy, self.critic):
            part.gradient_checkpointing_enable(**arguments)

    def gradient_checkpointing_disable(self) -> None:
        for part in (self.policy, self.critic):
            part.gradient_checkpointing_disable()


# ------------------------------------------------------------------------------------------------ tasks


def _update(
    model: ActorCritic, input_ids: Tensor, attention_mask: Tensor, before: tuple[Tensor, Tensor], temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities, entropies and values of the generated tokens, [N] each.

    Args:
        before: row and position of the token before each generated one, [N] each.
    """
    logps_N, entropy_N = token_logps(model.policy, input_ids, attention_mask, before, temperature)
    return logps_N, entropy_N, token_values(model.critic, input_ids, attention_mask, before)


def _reference(
    model: ActorCritic, input_ids: Tensor, attention_mask: Tensor, before: tuple[Tensor, Tensor], temperature: float
) -> Tensor:
    """Log-probabilities [N] of the policy without its adapter."""
    with adapters_off(model.policy):
        return token_logps(model.policy, input_ids, attention_mask, before, temperature)[0]


def _call(model: ActorCritic, part: str, without_adapter: bool = False, **inputs: Any) -> Any:
    """A part's own forward: what measuring and probing ask."""
    chosen = getattr(model, part)
    if not without_adapter:
        return chosen(**inputs)
    with adapters_off(chosen):
        return chosen(**inputs)


def _generate(model: ActorCritic, **inputs: Any) -> Tensor:
    """The policy's `generate`, inside the whole module's forward."""
    return model.policy.generate(**inputs)


TASKS: dict[str, Callable[..., Any]] = {
    "update": _update,
    "reference": _reference,
    "call": _call,
    "generate": _generate,
}


# ------------------------------------------------------------------------------------------------ tokens


def token_logps(
    model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor, before: tuple[Tensor, Tensor], temperature: float
) -> tuple[Tensor, Tensor]:
    """Log-probability and entropy [N], in fp32, of the tokens that follow the positions `before`.

    The hidden states are chosen before the head sees them, by a hook on the head: a model's own forward scales and caps logits in
    ways of its own, and calling body and head by themselves would go around them and around ZeRO-3 and FSDP2.
    """
    rows_N, positions_N = before
    head = inner_model(model).get_output_embeddings()
    handle = head.register_forward_pre_hook(lambda _, arguments: (arguments[0][rows_N, positions_N][None],))
    try:
        logits_NV = model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits[0]
    finally:
        handle.remove()
    logits_NV = logits_NV.float() / temperature
    normaliser_N = logits_NV.logsumexp(-1)
    tokens_N = input_ids[rows_N, positions_N + 1]
    logps_N = logits_NV.gather(-1, tokens_N[:, None])[:, 0] - normaliser_N
    with torch.no_grad():
        entropy_N = normaliser_N - (logits_NV.softmax(-1) * logits_NV).sum(-1)
    return logps_N, entropy_N


def token_values(
    model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor, before: tuple[Tensor, Tensor]
) -> Tensor:
    """Values [N] of the states at the positions `before`, in fp32: the score head's output before it is pooled."""
    [head] = [module for name, module in model.named_modules() if name.split(".")[-1] == "score"]
    seen: list[Tensor] = []
    handle = head.register_forward_hook(lambda module, arguments, output: seen.append(output))
    try:
        model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
    finally:
        handle.remove()
    return seen[0][..., 0][before].float()
