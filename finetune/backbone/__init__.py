"""Backbones: feature extractors that timm builds, and where their weights come from."""
