"""Test-time scaling: what is gained by drawing several completions and choosing among them."""
