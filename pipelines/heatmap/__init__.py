"""Heat maps of a trained encoder: clips, maps, numbers, images."""
