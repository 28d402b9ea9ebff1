"""Exporters: one file per artefact format; what they share is in artefact.py, parity.py, fold.py and model_card.py."""
