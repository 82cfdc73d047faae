"""Masks by a segmentation model that follows prompted objects: options, one video, all videos of a store."""
