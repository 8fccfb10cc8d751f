"""An error of the network between ranks is a lost rank (5), whatever library says it; another error stays a defect."""

from pathlib import Path

import pytest
import torch

from alignment.errors import LaunchError
from alignment.launch.environment import LaunchEnvironment
from alignment.launch.worker import _lost_peer

GLOO = "[/__w/gloo/transport/tcp/pair.cc:537] Read error [10.0.0.7]:64747: Connection reset by peer. This is typically caused by"
NCCL = "NCCL error in: /pytorch/ProcessGroupNCCL.cpp:77, remote process exited or there was a network error"


@pytest.mark.parametrize(
    ("error", "found"),
    [(RuntimeError(GLOO), "(Read error [10.0.0.7]:64747: Connection reset by peer"),
     (torch.distributed.DistBackendError(NCCL), "remote process exited"),
     (torch.distributed.DistNetworkError("The client socket has timed out"), "socket has timed out")],
)  # fmt: skip
def test_a_broken_connection_is_a_lost_rank_with_what_to_do(error: RuntimeError, found: str) -> None:
    lost = _lost_peer(error, Path("runs/a/sft"), LaunchEnvironment(rank=1, world_size=4, num_machines=2))
    assert isinstance(lost, LaunchError)
    assert found in str(lost)
    assert "runs/a/sft: rank 1 lost the others in step" in str(lost)
    assert "the same command goes on from the last checkpoint" in str(lost)
    assert "\n" not in str(lost)


@pytest.mark.parametrize("message", ["mat1 and mat2 shapes cannot be multiplied", ""])
def test_any_other_error_is_none(message: str) -> None:
    assert _lost_peer(RuntimeError(message), Path("runs/a/sft"), LaunchEnvironment(world_size=4)) is None
