"""The demonstration: the synthetic world from videos to scores."""
