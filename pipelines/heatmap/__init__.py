"""Heat maps of trained encoders: clips, maps, numbers, images."""
