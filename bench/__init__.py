"""Measurements: ``python -m bench`` for speed. Not part of the installed package."""
