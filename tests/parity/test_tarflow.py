"""TarFlow in the layout of apple/ml-tarflow's checkpoints, against its formulas in torch; random small weights."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxpar import Jacobi, Sequential, Sliding, Solver, Within
from jaxpar.flows import Inversion, images_of
from jaxpar.pretrained import load

torch = pytest.importorskip("torch")
functional = torch.nn.functional

EDGE, CHANNELS, PATCH, WIDTH, BLOCKS, LAYERS, CLASSES = 8, 3, 2, 128, 3, 2, 4
TOKENS, ELEMENTS = (EDGE // PATCH) ** 2, CHANNELS * PATCH**2


def tensors():
    """Names and shapes of its state dict."""
    random = np.random.default_rng(0)
    shapes = {"var": (TOKENS, ELEMENTS)}
    for i in range(BLOCKS):
        block = f"blocks.{i}"
        shapes |= {
            f"{block}.proj_in.weight": (WIDTH, ELEMENTS), f"{block}.proj_in.bias": (WIDTH,),
            f"{block}.pos_embed": (TOKENS, WIDTH), f"{block}.class_embed": (CLASSES, 1, WIDTH),
            f"{block}.proj_out.weight": (2 * ELEMENTS, WIDTH), f"{block}.proj_out.bias": (2 * ELEMENTS,),
            f"{block}.attn_mask": (TOKENS, TOKENS),
        }  # fmt: skip
        for j in range(LAYERS):
            layer = f"{block}.attn_blocks.{j}"
            shapes |= {
                f"{layer}.attention.norm.weight": (WIDTH,), f"{layer}.attention.norm.bias": (WIDTH,),
                f"{layer}.attention.qkv.weight": (3 * WIDTH, WIDTH), f"{layer}.attention.qkv.bias": (3 * WIDTH,),
                f"{layer}.attention.proj.weight": (WIDTH, WIDTH), f"{layer}.attention.proj.bias": (WIDTH,),
                f"{layer}.mlp.norm.weight": (WIDTH,), f"{layer}.mlp.norm.bias": (WIDTH,),
                f"{layer}.mlp.main.0.weight": (4 * WIDTH, WIDTH), f"{layer}.mlp.main.0.bias": (4 * WIDTH,),
                f"{layer}.mlp.main.2.weight": (WIDTH, 4 * WIDTH), f"{layer}.mlp.main.2.bias": (WIDTH,),
            }  # fmt: skip
    return {name: (0.05 * random.normal(size=shape)).astype(np.float32) for name, shape in shapes.items()}


class Reference:
    """The formulas of arXiv 2412.06329, sections 2.2 and 2.6, on tensors by their published names."""

    def __init__(self, tensors):
        self.tensors = {name: torch.from_numpy(value) for name, value in tensors.items()}

    def linear(self, name, x):
        return functional.linear(x, self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"])

    def norm(self, name, x):
        return functional.layer_norm(x, (WIDTH,), self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"])

    def scale_and_shift(self, i, tokens, label):
        """Of the token after each, given all up to it; tokens and places in the block's order."""
        place = self.tensors[f"blocks.{i}.pos_embed"]
        place = place.flip(0) if i % 2 else place
        every = self.tensors[f"blocks.{i}.class_embed"]
        known = [every.mean(dim=0) if one == CLASSES else every[one] for one in label]
        x = self.linear(f"blocks.{i}.proj_in", tokens) + place[: tokens.shape[1]] + torch.stack(known)
        for j in range(LAYERS):
            layer = f"blocks.{i}.attn_blocks.{j}"
            mixed = self.linear(f"{layer}.attention.qkv", self.norm(f"{layer}.attention.norm", x))
            query, key, value = (part.unflatten(2, (-1, 64)).transpose(1, 2) for part in mixed.split(WIDTH, dim=2))
            seen = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
            x = x + self.linear(f"{layer}.attention.proj", seen.transpose(1, 2).flatten(2))
            inner = functional.gelu(self.linear(f"{layer}.mlp.main.0", self.norm(f"{layer}.mlp.norm", x)))
            x = x + self.linear(f"{layer}.mlp.main.2", inner)
        return self.linear(f"blocks.{i}.proj_out", x).chunk(2, dim=2)

    def forward(self, image, label):
        tokens, volume = functional.unfold(image, PATCH, stride=PATCH).transpose(1, 2), 0.0
        for i in range(BLOCKS):
            tokens = tokens.flip(1) if i % 2 else tokens
            scale, shift = self.scale_and_shift(i, tokens[:, :-1], label)
            rest = (tokens[:, 1:] - shift) * torch.exp(-scale)
            tokens, volume = torch.cat([tokens[:, :1], rest], dim=1), volume - scale.sum(dim=(1, 2))
            tokens = tokens.flip(1) if i % 2 else tokens
        return tokens, volume / (TOKENS * ELEMENTS)

    def inverse(self, tokens, label, guidance):
        for i in reversed(range(BLOCKS)):
            tokens = (tokens.flip(1) if i % 2 else tokens).clone()
            for t in range(1, TOKENS):
                scale, shift = (part[:, -1] for part in self.scale_and_shift(i, tokens[:, :t], label))
                if guidance:
                    null = [CLASSES] * len(label)
                    plain, plain_shift = (part[:, -1] for part in self.scale_and_shift(i, tokens[:, :t], null))
                    scale, shift = scale + guidance * (scale - plain), shift + guidance * (shift - plain_shift)
                tokens[:, t] = tokens[:, t] * torch.exp(scale) + shift
            tokens = tokens.flip(1) if i % 2 else tokens
        return functional.fold(tokens.transpose(1, 2), (EDGE, EDGE), PATCH, stride=PATCH)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder, found = tmp_path_factory.mktemp("tarflow"), tensors()
    save_file(found, folder / "model.safetensors")
    settings = {
        "_class_name": "TarFlow", "in_channels": CHANNELS, "img_size": EDGE, "patch_size": PATCH, "channels": WIDTH,
        "num_blocks": BLOCKS, "layers_per_block": LAYERS, "num_classes": CLASSES, "nvp": True,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(settings))
    return load(folder), Reference(found)


LABELS = [2, 0, CLASSES]


def test_forward(both):
    ours, theirs = both
    image = np.random.default_rng(1).normal(size=(3, EDGE, EDGE, CHANNELS)).astype(np.float32)
    noise, volume = ours(jnp.asarray(image), jnp.asarray(LABELS))
    wanted, wanted_volume = theirs.forward(torch.from_numpy(image).permute(0, 3, 1, 2), LABELS)
    np.testing.assert_allclose(noise, wanted, atol=1e-5)
    np.testing.assert_allclose(volume, wanted_volume, atol=1e-6)


@pytest.mark.parametrize("guidance", [0.0, 1.5])
def test_inverse(both, guidance):
    ours, theirs = both
    noise = np.random.default_rng(2).normal(size=(3, TOKENS, ELEMENTS)).astype(np.float32)
    wanted = theirs.inverse(torch.from_numpy(noise), LABELS, guidance).permute(0, 2, 3, 1)
    for solver in (Sequential(), Solver(Jacobi(), Within(1e-6), Sliding(5))):

        def back(noise, label, solver=solver):
            return images_of(ours, noise, label, [Inversion(solver)] * BLOCKS, guidance)[0]

        found = jax.jit(jax.vmap(back))(jnp.asarray(noise), jnp.asarray(LABELS))
        np.testing.assert_allclose(found, wanted, atol=2e-5)
