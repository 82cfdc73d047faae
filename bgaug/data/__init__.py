"""Clips of a store for training: dataset, loader, batch."""
