"""What a run will take, before it is queued: memory by phase, steps, tokens, FLOPs, hours, cost, disk."""
