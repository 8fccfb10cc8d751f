"""An estimate of the energy that a run took, from the rated power of its GPUs; none where that is not known.

It is an upper bound for the GPUs and leaves out the machine around them. No CPU is estimated: its share is nobody's to say.
"""

from collections.abc import Mapping
from typing import Any

# Rated board power in watts by the name that the driver gives, from the makers' data sheets.
RATED_WATTS = {
    "NVIDIA H200": 700,
    "NVIDIA H100 80GB HBM3": 700,
    "NVIDIA H100 PCIe": 350,
    "NVIDIA A100-SXM4-80GB": 400,
    "NVIDIA A100-SXM4-40GB": 400,
    "NVIDIA A100 80GB PCIe": 300,
    "NVIDIA L40S": 350,
    "NVIDIA L4": 72,
    "NVIDIA GeForce RTX 4090": 450,
    "NVIDIA GeForce RTX 3090": 350,
    "Tesla V100-SXM2-32GB": 300,
    "Tesla T4": 70,
}


def estimate_energy(receipt: Mapping[str, Any]) -> str:
    """`at most N kWh`, and of what; empty where a GPU's rated power or the time is not known."""
    gpus = receipt.get("hardware", {}).get("gpus", ())
    seconds = receipt.get("seconds", {}).get("total")
    watts = {RATED_WATTS.get(name) for name in gpus}
    if not gpus or seconds is None or None in watts or len(watts) != 1:
        return ""
    (each,) = watts
    number = max(receipt.get("world_size", len(gpus)), 1)
    kilowatt_hours = number * each * seconds / 3.6e6
    return f"at most {kilowatt_hours:.3g} kWh ({number} x {each} W, the rated power of the GPUs, for the whole time)"
