"""Arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from bgaug.pipelines.options import Option

StorePath = Annotated[Path, Option("A store.", argument=True, metavar="STORE")]
RunPath = Annotated[Path, Option("A run that train made, or one checkpoint of it.", argument=True, metavar="RUN")]
