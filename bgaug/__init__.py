"""bgaug: against background bias in video representation learning."""

__version__ = "0.1.0"
