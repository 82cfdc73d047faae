"""Shots of a video: cuts, camera motion, the background of a shot and its grade."""
