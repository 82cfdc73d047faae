"""Reading videos: the content of a file, one sequential pass over it, and frames by index or time.

The only package that imports PyAV or decord. It returns every frame as upright RGB uint8, in the order of presentation,
at ascending times, from the best video stream of the file (docs/video.md). PyAV is the default and reads every
container of FFmpeg that refers to no other file; decord reads only sequentially, because its seeks return other frames
for AVI with B-frames and for open-GOP H.264.
"""

from bgaug.names import Decoder
from bgaug.video.container import most_frames
from bgaug.video.frames import EXTENSIONS, DecodedFrame, Video, VideoInfo, VideoReader, thumbnail_of
from bgaug.video.probe import Probe, probe_video
from bgaug.video.reader import DECODERS, declared_length, open_video, read_video
from bgaug.video.timeline import Timeline, timeline_of
from bgaug.video.with_decord import DecordReader
from bgaug.video.with_pyav import PyavReader
from bgaug.video.writing import write_video

__all__ = [
    "DECODERS",
    "EXTENSIONS",
    "DecodedFrame",
    "Decoder",
    "DecordReader",
    "Probe",
    "PyavReader",
    "Timeline",
    "Video",
    "VideoInfo",
    "VideoReader",
    "declared_length",
    "most_frames",
    "open_video",
    "probe_video",
    "read_video",
    "thumbnail_of",
    "timeline_of",
    "write_video",
]
