"""Heads: from pooled features B D to logits B K."""
