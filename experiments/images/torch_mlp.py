"""`jaxpar.models.MLPDenoiser` in torch, for its peers to run on the same weights."""

import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


def dense(weights: Mapping[str, Any]) -> torch.nn.Linear:
    """A torch layer from an nnx one, whose kernel is (inputs, outputs)."""
    kernel = np.asarray(weights["kernel"])
    layer = torch.nn.Linear(*kernel.shape)
    layer.load_state_dict({"weight": torch.tensor(kernel.T), "bias": torch.tensor(np.asarray(weights["bias"]))})
    return layer


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """As `jaxpar.models.modulation.modulate`, for a batch of vectors."""
    return functional.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


class TorchCondition(torch.nn.Module):
    """As `jaxpar.models.denoisers.condition.Condition`, for a batch."""

    turns: Tensor

    def __init__(self, weights: Mapping[str, Any]):
        super().__init__()
        self.time_in, self.time_out = dense(weights["time_in"]), dense(weights["time_out"])
        self.label = torch.nn.Embedding.from_pretrained(torch.tensor(np.asarray(weights["label"]["embedding"])))
        turns = np.array(jnp.geomspace(0.5, 16.0, self.time_in.in_features // 2, dtype=jnp.float32))
        self.register_buffer("turns", torch.from_numpy(turns))

    def forward(self, when: Tensor, label: Tensor) -> Tensor:
        angles = 2 * math.pi * when[:, None] * self.turns
        features = torch.cat([angles.sin(), angles.cos()], dim=-1)
        return functional.silu(self.time_out(functional.silu(self.time_in(features))) + self.label(label))


class TorchBlock(torch.nn.Module):
    """As `jaxpar.models.denoisers.mlp.Block`, for a batch."""

    def __init__(self, weights: Mapping[str, Any]):
        super().__init__()
        self.modulation, self.up, self.down = (dense(weights[name]) for name in ("modulation", "up", "down"))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift, scale, gate = self.modulation(condition).chunk(3, dim=-1)
        return x + gate * self.down(functional.silu(self.up(modulate(x, shift, scale))))


class TorchMLP(torch.nn.Module):
    """`jaxpar.models.MLPDenoiser` for a batch of images, from its weights as a nested dictionary."""

    def __init__(self, weights: Mapping[str, Any]):
        super().__init__()
        self.condition = TorchCondition(weights["condition"])
        self.read = dense(weights["read"])
        self.blocks = torch.nn.ModuleList([TorchBlock(block) for _, block in sorted(weights["blocks"].items())])
        self.modulation, self.write = dense(weights["readout"]["modulation"]), dense(weights["readout"]["write"])

    def forward(self, image: Tensor, when: Tensor, label: Tensor) -> Tensor:
        condition = self.condition(when, label)
        x = self.read(image.flatten(1))
        for block in self.blocks:
            x = block(x, condition)
        shift, scale = self.modulation(condition).chunk(2, dim=-1)
        return self.write(modulate(x, shift, scale)).view_as(image)
