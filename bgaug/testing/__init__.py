"""Worlds whose answers are known, and scores against the truth; nothing else in the library imports this package."""
