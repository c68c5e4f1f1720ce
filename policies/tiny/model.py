"""TinyVLA's network: two small camera trunks, spatial tokens that language attends to, and a flow-matching head."""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # torch's own name for it
from jaxtyping import Float, Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor, nn

from vlamem.policies.tiny.language import PAD

_PATCH = 4


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the network.

    Attributes:
        vocabulary: number of word numbers.
        sentence_length: most words of a sentence.
        image_size: S, a multiple of 4.
        cameras: names of the cameras, in the order in which images are given.
        horizon, action_size: H and A.
        proprioception: size of the normalised proprioception.
        categories: cardinality of each privileged category.
        values: number of privileged values.
        stem, width: channels of the trunk before and after the last stride.
        blocks: residual blocks of a trunk.
        queries: places that a sentence can look at in each camera.
        attention: size of keys and values of these places.
        squeeze: channels that each spatial token brings to z.
        feature: D, size of the memory feature z.
        context: C, size of the instruction's vector.
        sentence_layers: layers of self-attention over the words.
        key: K, size of the retrieval key.
        hidden: width of the conditioning and of the flow head.
        flow_blocks: residual blocks of the flow head.
    """

    vocabulary: int
    sentence_length: int = 32
    image_size: int = 84
    cameras: tuple[str, ...] = ("agentview", "wrist")
    horizon: int = 16
    action_size: int = 7
    proprioception: int = 10
    categories: tuple[int, ...] = field(default=())
    values: int = 0
    stem: int = 48
    width: int = 96
    blocks: int = 1
    queries: int = 6
    attention: int = 48
    squeeze: int = 12
    feature: int = 256
    context: int = 128
    sentence_layers: int = 2
    key: int = 64
    hidden: int = 256
    flow_blocks: int = 3

    @property
    def grid(self) -> int:
        """Spatial tokens along one side of an image."""
        return (self.image_size // _PATCH + 1) // 2


def patches(images: UInt8[NDArray[np.uint8], "B S S 3"]) -> UInt8[Tensor, "B 48 S_4 S_4"]:
    """Space to depth: every 4 x 4 pixels as 48 channels, in channels-last memory."""
    b, s = images.shape[:2]
    n = s // _PATCH
    rows = np.ascontiguousarray(images).reshape(b, n, _PATCH, n, 3 * _PATCH).view(np.uint32)
    grouped = np.ascontiguousarray(rows.transpose(0, 1, 3, 2, 4)).view(np.uint8)  # whole words: ten times faster
    return torch.from_numpy(grouped.reshape(b, n, n, 3 * _PATCH**2)).permute(0, 3, 1, 2)


class Trunk(nn.Module):
    """One camera's patches to spatial tokens."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        w = config.width
        self.stem = nn.Conv2d(3 * _PATCH**2, config.stem, 3, padding=1)
        self.down = nn.Conv2d(config.stem, w, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(
            nn.ModuleList([nn.Conv2d(w, w, 3, padding=1), nn.Conv2d(w, w, 1)]) for _ in range(config.blocks)
        )
        self.place = nn.Parameter(0.02 * torch.randn(config.grid**2, w))
        self.norm = nn.LayerNorm(w)

    def forward(self, x: Float[Tensor, "B 48 S_4 S_4"]) -> Float[Tensor, "B tokens width"]:
        x = F.relu(self.stem(x))
        x = F.relu(self.down(x))
        for block in self.blocks:
            assert isinstance(block, nn.ModuleList)
            x = x + block[1](F.relu(block[0](x)))
        tokens = x.permute(0, 2, 3, 1).flatten(1, 2)
        normed: Tensor = self.norm(F.relu(tokens) + self.place)
        return normed


class WordLayer(nn.Module):
    """One layer of self-attention over the words of a sentence."""

    def __init__(self, size: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(size), nn.LayerNorm(size)
        self.qkv = nn.Linear(size, 3 * size)
        self.mix = nn.Linear(size, size)
        self.mlp = nn.Sequential(nn.Linear(size, 2 * size), nn.GELU(), nn.Linear(2 * size, size))

    def forward(self, x: Float[Tensor, "B length context"], real: Tensor) -> Float[Tensor, "B length context"]:
        b, n, c = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        # spelled out: on a CPU the backward pass of torch's fused attention takes ten times longer for short sentences
        scores = (q @ k.transpose(-1, -2)).float() / math.sqrt(c // self.heads)
        weights = torch.softmax(scores.masked_fill(~real[:, None, None, :], -torch.inf), -1)
        mixed = weights.to(v.dtype) @ v
        x = x + self.mix(mixed.transpose(1, 2).reshape(b, n, c))
        layer: Tensor = x + self.mlp(self.norm2(x))
        return layer


class InstructionEncoder(nn.Module):
    """Word numbers to one context vector: embeddings, self-attention, and four learned looks at the words.

    A mean over the words loses which of two colours belongs to which of two things; a look picks out words.
    """

    looks = 4

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        c = config.context
        self.word = nn.Embedding(config.vocabulary, c)
        self.place = nn.Parameter(0.1 * torch.randn(config.sentence_length, c))
        self.layers = nn.ModuleList(WordLayer(c) for _ in range(config.sentence_layers))
        self.norm, self.norm_out = nn.LayerNorm(c), nn.LayerNorm(c, elementwise_affine=False)
        self.look = nn.Linear(c, self.looks)
        self.out = nn.Linear(self.looks * c, c)

    def forward(self, words: Int64[Tensor, "B length"]) -> Float[Tensor, "B context"]:
        real = words != PAD
        longest = int(real.sum(1).max())
        words, real = words[:, :longest], real[:, :longest]
        x = self.word(words) + self.place[:longest]
        for layer in self.layers:
            x = layer(x, real)
        x = self.norm(x)
        looks = self.look(x).float().masked_fill(~real[..., None], -torch.inf)
        seen = torch.softmax(looks, 1).to(x.dtype).transpose(1, 2) @ x
        context: Tensor = self.norm_out(self.out(seen.flatten(1)))
        return context


class Reader(nn.Module):
    """Language looks at the spatial tokens: what it finds, where it finds it, and the condition of the flow head."""

    coordinates: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        cameras, q, a = len(config.cameras), config.queries, config.attention
        self.query = nn.Sequential(nn.Linear(config.context, 256), nn.GELU(), nn.Linear(256, cameras * q * a))
        self.to_key = nn.ModuleList(nn.Linear(config.width, a) for _ in config.cameras)
        self.to_value = nn.ModuleList(nn.Linear(config.width, a) for _ in config.cameras)
        line = torch.linspace(-1, 1, config.grid)
        grid = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1).flip(-1).reshape(-1, 2)
        self.register_buffer("coordinates", grid, persistent=False)
        found = cameras * q * (a + 2)
        self.inward = nn.Linear(found + config.feature + config.proprioception + config.context, config.hidden)
        self.film = nn.Linear(config.context, 2 * config.hidden)
        self.mlp = nn.Sequential(nn.Linear(config.hidden, config.hidden), nn.GELU())
        self.out = nn.Linear(config.hidden, config.hidden)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)

    def keys_values(self, tokens: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of each camera's tokens, independent of language."""
        return [(k(t), v(t)) for k, v, t in zip(self.to_key, self.to_value, tokens, strict=True)]

    def forward(
        self, context: Tensor, seen: list[tuple[Tensor, Tensor]], z: Tensor, proprioception: Tensor
    ) -> tuple[Float[Tensor, "B hidden"], Float[Tensor, "B places"]]:
        """Condition of the flow head, and the image coordinates (-1..1) that each query of each camera looks at."""
        b, n, a = len(context), self.config.queries, self.config.attention
        queries = self.query(context).reshape(b, len(seen), n, a)
        found, places = [], []
        for i, (key, value) in enumerate(seen):
            weights = torch.softmax((queries[:, i] @ key.transpose(1, 2)).float() / math.sqrt(a), -1)
            found.append((weights.to(value.dtype) @ value).flatten(1))
            places.append((weights @ self.coordinates).flatten(1))
        where = torch.cat(places, 1)
        x = self.inward(torch.cat([*found, where.to(z.dtype), z, proprioception, context], 1))
        scale, shift = self.film(context).chunk(2, 1)
        x = F.gelu(x) * (1 + scale) + shift
        condition: Tensor = self.out(x + self.mlp(x))
        return condition, where


class FlowHead(nn.Module):
    """Velocity v = noise - action of a chunk at flow time t (1 noise, 0 data), under a condition."""

    frequencies: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        h, flat = config.hidden, config.horizon * config.action_size
        self.register_buffer("frequencies", 2.0 ** torch.arange(8) * math.pi / 2, persistent=False)
        self.time = nn.Sequential(nn.Linear(16, h), nn.SiLU(), nn.Linear(h, h))
        self.inward = nn.Linear(flat, h)
        self.norms = nn.ModuleList(nn.LayerNorm(h, elementwise_affine=False) for _ in range(config.flow_blocks))
        self.modulate = nn.ModuleList(nn.Linear(h, 3 * h) for _ in range(config.flow_blocks))
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.Linear(h, 2 * h), nn.GELU(), nn.Linear(2 * h, h)) for _ in range(config.flow_blocks)
        )
        self.out = nn.Linear(h, flat)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(
        self, x: Float[Tensor, "B H A"], t: Float[Tensor, "B"], condition: Float[Tensor, "B hidden"]
    ) -> Float[Tensor, "B H A"]:
        angle = t[:, None] * self.frequencies
        modulation = F.silu(condition + self.time(torch.cat([angle.sin(), angle.cos()], 1)))
        h = self.inward(x.flatten(1)) + condition
        for norm, modulate, mlp in zip(self.norms, self.modulate, self.mlps, strict=True):
            scale, shift, gate = modulate(modulation).chunk(3, 1)
            h = h + gate * mlp(norm(h) * (1 + scale) + shift)
        velocity: Tensor = self.out(h)
        return velocity.reshape(x.shape)


class TinyNetwork(nn.Module):
    """All learned parts; `see`, `read` and `velocity` are the three stages of a decision."""

    key_mean: Tensor
    key_projection: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.trunks = nn.ModuleList(Trunk(config) for _ in config.cameras)
        self.language = InstructionEncoder(config)
        self.squeeze = nn.ModuleList(nn.Linear(config.width, config.squeeze) for _ in config.cameras)
        flat = len(config.cameras) * config.squeeze * config.grid**2 + config.proprioception
        self.feature = nn.Sequential(nn.Linear(flat, 256), nn.GELU(), nn.Linear(256, config.feature))
        self.feature_norm = nn.LayerNorm(config.feature, elementwise_affine=False)
        self.reader = Reader(config)
        self.flow = FlowHead(config)
        self.categories = nn.Linear(config.feature, max(1, sum(config.categories)))
        self.values = nn.Linear(config.feature, max(1, config.values))
        self.target = nn.Linear(config.hidden, 6)
        self.place = nn.Linear(2 * config.queries * len(config.cameras), 6)
        self.register_buffer("key_mean", torch.zeros(config.feature))
        self.register_buffer("key_projection", torch.eye(config.feature)[:, : config.key].clone())
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's overloads lack this keyword alone

    def see(
        self, cameras: list[Float[Tensor, "B 48 S_4 S_4"]], proprioception: Float[Tensor, "B P"]
    ) -> tuple[Float[Tensor, "B D"], list[tuple[Tensor, Tensor]]]:
        """Memory feature z, and per camera the keys and values that language will look at; no language goes in."""
        tokens = [trunk(x) for trunk, x in zip(self.trunks, cameras, strict=True)]
        flat = [F.gelu(s(t)).flatten(1) for s, t in zip(self.squeeze, tokens, strict=True)]
        z = self.feature_norm(self.feature(torch.cat([*flat, proprioception.to(flat[0].dtype)], 1)))
        return z, self.reader.keys_values(tokens)

    def retrieval_key(self, z: Float[Tensor, "B D"]) -> Float[Tensor, "B K"]:
        """Unit-length key: the whitened leading principal components of z over the training frames.

        Plain z would do badly: what all frames share dominates its cosine. Nothing here is trained.
        """
        return F.normalize((z - self.key_mean) @ self.key_projection, dim=1)


def parameters_of(network: nn.Module) -> int:
    """Number of learned parameters."""
    return sum(p.numel() for p in network.parameters())
