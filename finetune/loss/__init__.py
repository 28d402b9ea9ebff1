"""Losses: from logits B K and targets (int64 B, or float B K in [0, 1]) to a scalar."""
