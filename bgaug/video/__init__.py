"""Reading videos: what a file holds, one sequential pass over it, and frames by index or time.

The only room that imports PyAV or decord. Every frame leaves it as RGB uint8, turned the way it is meant to be seen,
in the order of presentation, at times that ascend, from the best video stream of the file (docs/video.md). PyAV reads
every container of FFmpeg that leads to no other file, and is the default; decord is read from the first frame to the last, never by index, because its seeks return other frames on
AVI with B-frames and on open-GOP H.264.
"""

from bgaug.names import Decoder
from bgaug.video.container import most_frames
from bgaug.video.frames import EXTENSIONS, THUMBNAIL_SIZE, DecodedFrame, Video, VideoInfo, VideoReader, thumbnail_of
from bgaug.video.probe import Deep, Probe, probe_video
from bgaug.video.reader import DECODERS, declared_length, open_video, read_video
from bgaug.video.timeline import Timeline, timeline_of
from bgaug.video.with_decord import DecordReader
from bgaug.video.with_pyav import PyavReader
from bgaug.video.writing import write_video

__all__ = [
    "DECODERS",
    "EXTENSIONS",
    "THUMBNAIL_SIZE",
    "DecodedFrame",
    "Decoder",
    "DecordReader",
    "Deep",
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
