"""The background-swap evaluation: choose, compose, probe."""
