"""Objects of one shot followed through windows of frames, in bounded memory.

Within a window, objects known from earlier windows are followed first, from the memory that each carries: the frame
with its prompt, and the last frames that the network looks back at. Objects that are new in the window are followed
from the frame with their prompt to the end of the window, and back to its beginning. A window holds its frames once,
at the network's size, one byte per value. So memory depends on the window, the network and the number of objects, not
on the length of the video; and where no object is added, masks are those of one window over the whole shot.

Letters: T frames of a window, S side of the network's image, h, w pixels of the network's masks, P points.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bgaug.model.pretrained.mask_model import VideoMaskModel

_NOT_THERE = -1024.0  # score of a pixel, as the network gives it where it finds no object


class ShotTracker:
    """The objects of one shot. For each window: `add` its frames, `follow`, `prompt` new objects, `close_window`.

    Args:
        model: the model.
        max_objects: objects that are followed at a time.
    """

    def __init__(self, model: VideoMaskModel, max_objects: int = 4) -> None:
        self._model = model
        self._max_objects = max_objects
        self._first = 0  # of the window, counted in the shot
        self._frames: list[Tensor] = []
        self._tracks: list[_Track] = []
        self._cache: Any = None
        self._scores: Tensor | None = None

    @property
    def num_objects(self) -> int:
        """Objects that are followed."""
        return len(self._tracks)

    @property
    def free(self) -> int:
        """New objects that a prompt may add; objects that were nowhere in the window make space for others."""
        return self._max_objects - sum(track.seen for track in self._tracks)

    @property
    def held_frames(self) -> int:
        """Frames that are held now: of the window, and in the memories of all objects."""
        return len(self._frames) + sum(track.held_frames for track in self._tracks)

    def add(self, frame: NDArray[np.uint8]) -> None:
        """Add the next frame to the window: uint8 (H, W, 3), RGB, of any size."""
        self._frames.append(self._model.square(torch.from_numpy(np.ascontiguousarray(frame))))

    def follow(self) -> None:
        """Follow the objects of earlier windows through this one."""
        for track in self._tracks:
            track.seen = False
        for place in range(len(self._frames) if self._tracks else 0):
            for track in self._tracks:
                self._step(track, place)

    def prompt(self, frame: int, points: Sequence[NDArray[np.float32]], labels: Sequence[NDArray[np.int32]]) -> None:
        """Add objects, and follow them through the whole window.

        Args:
            frame: number of their frame in the window.
            points: of each object, float32 (P, 2), x and y as fractions of the image.
            labels: of each, int32 (P,): 1 on the object, 0 off it, 2 and 3 the corners of its box, which come first.

        Raises:
            ValueError: more objects than are free, none, or no such frame.
        """
        if not 0 < len(points) <= self.free or len(labels) != len(points) or not 0 <= frame < len(self._frames):
            raise ValueError(
                f"expected 1 to {self.free} objects of a frame below {len(self._frames)}, got {len(points)} and "
                f"{len(labels)} of frame {frame}"
            )
        lost = [track for track in self._tracks if not track.seen]
        surplus = max(0, len(self._tracks) + len(points) - self._max_objects)
        self._tracks = [track for track in self._tracks if track not in lost[:surplus]]
        new = [
            _Track(self._model, self._first + frame, coordinates, label)
            for coordinates, label in zip(points, labels, strict=True)
        ]
        self._tracks += new
        for place in range(frame, len(self._frames)):
            for track in new:
                self._step(track, place)
        for track in new:
            track.begin_reverse()
        for place in range(frame - 1, -1, -1):
            for track in new:
                self._step(track, place, reverse=True)
        for track in new:
            track.end_reverse()

    def scores(self) -> Tensor | None:
        """The best score of all objects: float32 (T, h, w), above 0 in the masks; None without any object so far."""
        return self._scores

    def mask(self, place: int, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Mask of a frame of the window at a size: bool (H, W); empty without any object."""
        if self._scores is None:
            return np.zeros(size, np.bool_)
        score = self._scores[place][None, None]
        larger = torch.nn.functional.interpolate(score, size, mode="bilinear", align_corners=False)
        return np.asarray((larger[0, 0] > 0).cpu().numpy())

    def close_window(self) -> None:
        """End the window: its frames and scores are released, memories are kept."""
        self._first += len(self._frames)
        self._frames, self._scores, self._cache = [], None, None
        for track in self._tracks:
            track.prune(self._first - 1)

    def _step(self, track: _Track, place: int, *, reverse: bool = False) -> None:
        number = self._first + place
        # The features of a frame are computed once for all objects.
        self._cache = track.share(self._cache)
        image = self._model.normalised(self._frames[place])
        scores = track.step(number, image, reverse=reverse)
        if self._scores is None:
            shape = (len(self._frames), *scores.shape)
            self._scores = torch.full(shape, _NOT_THERE, device=scores.device)
        torch.maximum(self._scores[place], scores, out=self._scores[place])


class _Track:
    """One object, from its prompt on.

    Attributes:
        seen: whether its mask had any pixel in the window so far.
    """

    def __init__(
        self, model: VideoMaskModel, frame: int, points: NDArray[np.float32], labels: NDArray[np.int32]
    ) -> None:
        self.seen = False
        self._network = model.network
        self._reach = model.memory_frames
        self._session = model.new_session()
        index = self._session.obj_id_to_idx(0)
        # The network shifts coordinates by half a pixel: it expects those of centres of pixels to be whole.
        pixels = torch.from_numpy(points) * model.side - 0.5
        prompt = {"point_coords": pixels[None, None], "point_labels": torch.from_numpy(labels)[None, None]}
        self._session.add_point_inputs(index, frame, prompt)
        self._session.obj_with_new_inputs = [0]
        self._outputs: dict[str, dict[int, Any]] = self._session.output_dict_per_obj[index]
        self._aside: dict[int, Any] = {}

    @property
    def held_frames(self) -> int:
        """Frames whose images or features are held."""
        return len(self._session.processed_frames or ()) + sum(map(len, self._outputs.values())) + len(self._aside)

    def share(self, cache: Any) -> Any:
        """Use features that another object's session computed; returns the cache, this session's own for None."""
        if cache is not None:
            self._session.cache = cache
        return self._session.cache

    def begin_reverse(self) -> None:
        """Put what is remembered of the frames after the prompt aside; those before it are followed from the prompt."""
        self._aside = self._outputs["non_cond_frame_outputs"]
        self._outputs["non_cond_frame_outputs"] = {}

    def end_reverse(self) -> None:
        """Continue at the end of the window, from what was put aside."""
        self._outputs["non_cond_frame_outputs"] = self._aside
        self._aside = {}

    def step(self, frame: int, image: Tensor, *, reverse: bool) -> Tensor:
        """Scores of the object in the next frame, or with `reverse` in the previous one: float32 (h, w)."""
        found = self._network(self._session, frame_idx=frame, frame=image, reverse=reverse)
        self._session.processed_frames.clear()  # its features are in the cache, and its memory in the outputs
        for outputs in self._outputs.values():
            if frame in outputs:
                outputs[frame].pop("high_res_masks", None)  # needed only while the frame was encoded
        self.prune(frame)
        scores: Tensor = found.pred_masks[0, 0].float()
        self.seen = self.seen or bool((scores > 0).any())
        return scores

    def prune(self, frame: int) -> None:
        """Release what no frame after this one, or before it in reverse, looks back at."""
        followed = self._session.frames_tracked_per_obj[0]
        for kept in (self._outputs["non_cond_frame_outputs"], followed):
            for other in [other for other in kept if abs(other - frame) > self._reach]:
                del kept[other]
