"""A small video transformer whose features have no motion where the clip has none.

Letters: B clips, C channels, T frames, H, W pixels; primes (T', H', W') for the grid of tokens; L tokens that attend to
each other.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bgaug.model.backbones.contract import STAGES, Backbone


class VideoViT(Backbone):
    """A video transformer over tubelets: 5,037,120 parameters with the defaults.

    Tokens of (tubelet, patch, patch) pixels; pre-norm blocks of attention over time at one place, attention over space
    in one frame of tokens, and two linear layers. With the defaults (B, 3, 16, 112, 112) gives four stages of (192, 8,
    7, 7), two blocks each; the last one ends with the layer norm.

    Positions are separable sines and cosines: rows and columns are added to the tokens, time only to queries and keys,
    not to values. Attention over time then returns a token that never changes unchanged, so a clip without motion has
    features without motion; a position in time added to the tokens would break that. Nothing is padded or of fixed
    size: any clip that divides into tubelets is valid.

    Args:
        dim: channels of a token; a multiple of 4 and of num_heads.
        depth: number of blocks; a multiple of 4.
        num_heads: heads of each attention.
        patch: height and width of a tubelet, pixels.
        tubelet: frames of a tubelet.

    Raises:
        ValueError: sizes that do not divide.

    References: A. Arnab, M. Dehghani, G. Heigold, C. Sun, M. Lucic, C. Schmid, "ViViT: a video vision transformer",
    2021, arXiv 2103.15691 (tubelets); G. Bertasius, H. Wang, L. Torresani, "Is space-time attention all you need for
    video understanding?", 2021, arXiv 2102.05095 (attention divided over time and space); N. Carion et al., "End-to-end
    object detection with transformers", 2020, arXiv 2005.12872 (positions only in queries and keys). The size, and
    which position goes where, are ours.
    """

    def __init__(self, dim: int = 192, depth: int = 8, num_heads: int = 3, patch: int = 16, tubelet: int = 2) -> None:
        super().__init__()
        if min(dim, depth, num_heads, patch, tubelet) < 1:
            raise ValueError(
                f"sizes are at least 1, got {dim = }, {depth = }, {num_heads = }, {patch = }, {tubelet = }"
            )
        if dim % 4 or dim % num_heads:
            raise ValueError(f"dim must be a multiple of 4 and of num_heads, got {dim = }, {num_heads = }")
        if depth % len(STAGES):
            raise ValueError(f"depth must be a multiple of {len(STAGES)}, the number of stages, got {depth = }")
        self.num_heads = num_heads
        self.blocks_per_stage = depth // len(STAGES)
        self.cell = (tubelet, patch, patch)
        self.dims = dict.fromkeys(STAGES, dim)
        self.embed = nn.Conv3d(3, dim, self.cell, self.cell)
        self.stage1 = _Stage(dim, num_heads, self.blocks_per_stage)
        self.stage2 = _Stage(dim, num_heads, self.blocks_per_stage)
        self.stage3 = _Stage(dim, num_heads, self.blocks_per_stage)
        self.stage4 = self.last_stage()

    def last_stage(self) -> nn.Module:
        """A new last stage, of the same shape in and out; see `Backbone.last_stage`."""
        return _Stage(self.dims["stage3"], self.num_heads, self.blocks_per_stage, last=True)

    def forward(self, clips: Tensor) -> dict[str, Tensor]:
        """Features of the four stages.

        Raises:
            ValueError: the clip does not divide into tubelets.
        """
        B, C, T, H, W = clips.shape
        tubelet, patch, _ = self.cell
        if T % tubelet or H % patch or W % patch or 0 in (T, H, W):
            raise ValueError(
                f"clips must be a multiple of {tubelet} frames long and of {patch} pixels high and wide, got {T} "
                f"frames of {H} x {W}; crop them to size, or build the encoder with another tubelet or patch"
            )
        tokens = self.embed(clips)
        tokens = tokens + _space_position(tokens)
        features = {}
        for name in STAGES:
            features[name] = tokens = self.get_submodule(name)(tokens)
        return features


class _Stage(nn.Module):
    """Blocks over feature maps (B, C, T', H', W'); the last stage ends with a layer norm."""

    def __init__(self, dim: int, num_heads: int, num_blocks: int, last: bool = False) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(_Block(dim, num_heads) for _ in range(num_blocks)))
        self.norm = nn.LayerNorm(dim) if last else nn.Identity()
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> Tensor:
        B, C, T, H, W = features.shape
        tokens = features.permute(0, 2, 3, 4, 1).reshape(B, T, H * W, C)
        out: Tensor = self.norm(self.blocks(tokens))
        return out.reshape(B, T, H, W, C).permute(0, 4, 1, 2, 3)


class _Block(nn.Module):
    """Attention over time, attention over space, two linear layers: (B, T', H' W', C) -> the same."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.time_norm = nn.LayerNorm(dim)
        self.time = _Attention(dim, num_heads)
        self.space_norm = nn.LayerNorm(dim)
        self.space = _Attention(dim, num_heads)
        self.norm = nn.LayerNorm(dim)
        self.linear = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, tokens: Tensor) -> Tensor:
        lines = self.time_norm(tokens).transpose(1, 2)
        tokens = tokens + self.time(lines, _sines(lines.shape[2], lines)).transpose(1, 2)
        tokens = tokens + self.space(self.space_norm(tokens))
        out: Tensor = tokens + self.linear(self.norm(tokens))
        return out


class _Attention(nn.Module):
    """Attention among L tokens, in G groups per clip: (B, G, L, C) -> the same."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        # No bias: a bias of the keys adds the same number to all logits of a query, so it has no gradient.
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor, position: Tensor | None = None) -> Tensor:
        B, G, L, C = tokens.shape
        placed = tokens if position is None else tokens + position
        parts = (self.query(placed), self.key(placed), self.value(tokens))
        # Clips and groups become one axis, because the fast kernels take four.
        query, key, value = (part.reshape(B * G, L, self.num_heads, -1).transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(B, G, L, C))
        return out


def _sines(length: int, like: Tensor, dim: int | None = None) -> Tensor:
    """Sines and cosines of positions 0 ... length - 1, (length, dim), of the dtype and device of `like` (..., C)."""
    dim = like.shape[-1] if dim is None else dim
    rate = torch.arange(0, dim, 2, device=like.device, dtype=torch.float32).mul(-1 / dim)
    angle = torch.arange(length, device=like.device, dtype=torch.float32).outer(torch.pow(10_000.0, rate))
    return torch.cat([angle.sin(), angle.cos()], dim=1).to(like.dtype)


def _space_position(tokens: Tensor) -> Tensor:
    """Half of the channels for the row, half for the column: (1, C, 1, H', W') for tokens (B, C, T', H', W')."""
    B, C, T, H, W = tokens.shape
    rows = _sines(H, tokens, C // 2).t().view(C // 2, H, 1).expand(-1, -1, W)
    columns = _sines(W, tokens, C // 2).t().view(C // 2, 1, W).expand(-1, H, -1)
    return torch.cat([rows, columns]).view(1, C, 1, H, W)
