"""Dropout, of both kinds: modules, and the rates that attention layers keep as numbers and apply by function.

transformers 5.23's Llama with attention_dropout 0.5 gives two outputs in training mode when only modules are silenced, which is what TRL does.
"""

from collections.abc import Iterator

from torch import nn


def disable_dropout(model: nn.Module) -> None:
    """Sets every rate to 0."""
    for module, name in _rates(model):
        setattr(module, name, 0.0)


def has_dropout(model: nn.Module) -> bool:
    """Whether a training pass draws anything."""
    return any(getattr(module, name) > 0 and module.training for module, name in _rates(model))


def _rates(model: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    # By what they are called and not from a list: StarCoder2 has a residual_dropout, MPT an attn_dropout_p.
    for module in model.modules():
        names = [name for name, value in vars(module).items() if "drop" in name and isinstance(value, float)]
        for name in [*names, *(["p"] if isinstance(module, nn.Dropout) else [])]:
            yield module, name
