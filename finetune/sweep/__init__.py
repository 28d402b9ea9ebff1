"""Sweeps: many jobs that cannot hurt each other, resumable, on one machine or many.

``hydra_plugins/finetune_sweep`` is the door from Hydra's ``-m``; ``run.py`` reads from top to bottom what a sweep does.
Every job is the command that a user would type, in a process of its own. docs/sweeps.md has the commands.
"""
