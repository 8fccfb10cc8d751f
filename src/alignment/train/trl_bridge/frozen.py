"""Models that a trainer asks and never trains, placed as the trained one is: with TRL's way into DeepSpeed."""

from accelerate import Accelerator
from torch.distributed.fsdp import fully_shard
from transformers import PreTrainedModel
from trl.models.utils import prepare_deepspeed


def place_frozen(model: PreTrainedModel, accelerator: Accelerator) -> PreTrainedModel:
    """The model on this rank's device; its weights are dealt out to the ranks where those of the trained model are (ZeRO-3, FSDP2).

    Every rank must call it, and from then on all ranks the model's forward, equally often.
    """
    deepspeed = accelerator.state.deepspeed_plugin
    if deepspeed is not None and deepspeed.zero_stage == 3:
        engine = prepare_deepspeed(model, accelerator)
        vars(model)["_engine"] = engine  # its end would take the hooks that gather weights off the model
    elif accelerator.is_fsdp2:
        reshard = accelerator.state.fsdp_plugin.reshard_after_forward
        layers = [module for module in model.modules() if type(module).__name__ in (model._no_split_modules or ())]
        for module in [*layers, model]:
            fully_shard(module, reshard_after_forward=reshard)
    else:
        model.to(accelerator.device)
    return model
