"""Evaluation of a trained encoder: features, protocols, fine-tuning, reports."""
