"""Published models against diffusers' own classes, with the same random weights, by way of their safetensors."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxpar import Picard, Sequential, Sliding, Solver, Within, solve
from jaxpar.diffusion import Denoiser, VariancePreserving, ddim, evenly, initial_state, sampling_system_from
from jaxpar.models.published.timestep import timestep, timestep_features
from jaxpar.pretrained import load
from jaxpar.pretrained.files import Source, Tensor
from jaxpar.pretrained.load import abstract_module
from jaxpar.pretrained.places import places
from jaxpar.sharding import MeshConfig, Partition, activate, make_mesh

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

DIT = {
    "num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 4, "out_channels": 8, "num_layers": 2,
    "sample_size": 8, "patch_size": 2, "num_embeds_ada_norm": 10,
}  # fmt: skip
DDPM = {
    "sample_size": 16, "block_out_channels": (16, 32), "layers_per_block": 1, "norm_num_groups": 8,
    "attention_head_dim": None, "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"), "downsample_padding": 0, "flip_sin_to_cos": False,
    "freq_shift": 1, "norm_eps": 1e-6,
}  # fmt: skip
TEXT = {
    "sample_size": 8, "block_out_channels": (16, 32), "layers_per_block": 1, "norm_num_groups": 8,
    "attention_head_dim": 4, "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"), "cross_attention_dim": 24,
}  # fmt: skip
VAE = {
    "block_out_channels": (16, 32), "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2, "layers_per_block": 1, "norm_num_groups": 8,
}  # fmt: skip
SMALL = {
    "DiTTransformer2DModel": DIT, "UNet2DModel": DDPM, "UNet2DConditionModel": TEXT, "AutoencoderKL": VAE
}  # fmt: skip


def made(kind, **settings):
    """diffusers' model with random weights, those that start at nought or one among them."""
    torch.manual_seed(0)
    model = getattr(diffusers, kind)(**(SMALL[kind] | settings))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return model.eval()


def pair(folder, kind, **settings):
    """diffusers' model, and ours with its weights."""
    theirs = made(kind, **settings)
    theirs.save_pretrained(folder, safe_serialization=True)
    return theirs, load(folder)


def noise(*shape):
    return jnp.asarray(np.random.default_rng(len(shape)).normal(size=shape), jnp.float32)


def given(x):
    return torch.from_numpy(np.array(x))


def first(x):
    """Channels last as torch has them: first."""
    return given(np.moveaxis(np.asarray(x), -1, 1))


def last(x):
    return np.moveaxis(x.numpy(), 1, -1)


def assert_same(ours, theirs, atol=1e-5):
    assert ours.dtype == jnp.float32
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol * max(1, np.abs(theirs).max()))


def called(module, *inputs):
    """What a module says, compiled as one program: operation by operation it takes ten times as long."""
    graph, state = nnx.split(module)
    return jax.jit(lambda state, *inputs: nnx.merge(graph, state)(*inputs))(state, *inputs)


STEPS = np.array([0, 1, 500, 999])
TIMES = jnp.asarray((STEPS + 1) / 1000, jnp.float32)


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        ({}, 8),
        ({"attention_bias": False, "norm_eps": 1e-3, "num_layers": 1, "out_channels": None, "patch_size": 1}, 5),
        ({"sample_size": 12, "num_attention_heads": 3, "attention_head_dim": 8}, 20),
    ],
)
def test_dit(tmp_path, settings, size):
    theirs, ours = pair(tmp_path, "DiTTransformer2DModel", **({"sample_size": size} | settings))
    image, label = noise(4, size, size, 4), np.array([0, 3, 9, 10])  # the last is the null label
    with torch.no_grad():
        expected = last(theirs(first(image), given(STEPS), given(label)).sample)[..., :4]
    label = jnp.asarray(label, jnp.int32)
    assert_same(called(ours, image, TIMES, label), expected)
    if settings:
        return
    assert_same(called(ours, image[1], TIMES[1], label[1]), expected[1])  # without a batch
    image, times, label = (x.reshape(2, 2, *x.shape[1:]) for x in (image, TIMES, label))
    assert_same(called(ours, image, times, label), expected.reshape(image.shape))


def test_older_dit_files(tmp_path):
    """The class that DiT-XL/2 was published as, whose files also hold the places."""
    theirs = made("DiTTransformer2DModel")
    older = diffusers.Transformer2DModel(
        **DIT, norm_type="ada_norm_zero", attention_bias=True, activation_fn="gelu-approximate",
        norm_elementwise_affine=False,
    )  # fmt: skip
    older.load_state_dict(theirs.state_dict())
    older.pos_embed._non_persistent_buffers_set.clear()
    older.save_pretrained(tmp_path, safe_serialization=True)
    image, label = noise(4, 8, 8, 4), np.array([0, 3, 9, 10])
    with torch.no_grad():
        expected = last(theirs(first(image), given(STEPS), given(label)).sample)[..., :4]
    assert_same(called(load(tmp_path), image, TIMES, jnp.asarray(label, jnp.int32)), expected)


def test_blocks_of_dit(tmp_path):
    theirs, ours = pair(tmp_path, "DiTTransformer2DModel")
    x, image, label = noise(4, 16, 24), noise(4, 8, 8, 4), np.array([0, 3, 9, 10])
    features = timestep_features(timestep(TIMES), 256, shift=1)
    labels, steps = jnp.asarray(label, jnp.int32), given(STEPS)
    with torch.no_grad():
        assert_same(called(ours.pos_embed, image), theirs.pos_embed(first(image)).numpy())
        for one, other in zip(ours.transformer_blocks, theirs.transformer_blocks, strict=True):
            out = other(given(x), timestep=steps, class_labels=given(label))
            assert_same(called(one, x, features, labels), out.numpy())
            assert_same(called(one.attn1, x), other.attn1(given(x)).numpy())
            assert_same(called(one.ff, x), other.ff(given(x)).numpy())
            out = other.norm1.emb(steps, given(label), hidden_dtype=torch.float32)
            assert_same(called(one.norm1.emb, features, labels), out.numpy())


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ({}, (16, 16, 3)),
        ({"layers_per_block": 2, "downsample_padding": 1, "flip_sin_to_cos": True, "freq_shift": 0}, (6, 10, 3)),
        (
            {"down_block_types": ("DownBlock2D",) * 3, "up_block_types": ("UpBlock2D",) * 3, "add_attention": False,
             "block_out_channels": (8, 24, 16), "in_channels": 1, "out_channels": 1},
            (12, 4, 1),
        ),
        (
            {"down_block_types": ("AttnDownBlock2D",) * 2, "up_block_types": ("AttnUpBlock2D",) * 2,
             "attention_head_dim": 8, "num_class_embeds": 5},
            (8, 8, 3),
        ),
    ],
)  # fmt: skip
def test_unet(tmp_path, settings, shape):
    theirs, ours = pair(tmp_path, "UNet2DModel", **settings)
    image, label = noise(4, *shape), np.array([0, 2, 3, 4])
    told = given(label) if "num_class_embeds" in settings else None
    with torch.no_grad():
        expected = last(theirs(first(image), given(STEPS), told).sample)
    label = jnp.asarray(label, jnp.int32)
    assert_same(called(ours, image, TIMES, label), expected)
    if not settings:
        assert_same(called(ours, image[3], TIMES[3], label[3]), expected[3])
        assert_same(called(ours, image[None], TIMES[None], label[None]), expected[None])


def test_blocks_of_unet(tmp_path):
    theirs, ours = pair(tmp_path, "UNet2DModel")
    condition = noise(2, 64)
    emb = given(condition)
    with torch.no_grad():
        features = timestep_features(timestep(TIMES), 16, 1, False)
        assert_same(features, theirs.time_proj(given(STEPS)).numpy(), 1e-4)  # float32's, of angles to 999
        out = theirs.time_embedding(given(features))
        assert_same(called(ours.time_embedding, features), out.numpy())
        for one, other in zip(ours.down_blocks, theirs.down_blocks, strict=True):
            channels = other.resnets[0].in_channels
            x = noise(2, 8, 8, channels)
            out = other(first(x), emb)[1]
            for mine, yours in zip(called(one, x, condition), out, strict=True):
                assert_same(mine, last(yours))
        for one, other in zip(ours.up_blocks, theirs.up_blocks, strict=True):
            channels = [resnet.in_channels - resnet.out_channels for resnet in other.resnets]
            x, kept = noise(2, 8, 8, 32), [noise(2, 8, 8, count) for count in reversed(channels)]
            kept[-1] = noise(2, 8, 8, other.resnets[0].in_channels - 32)
            expected = last(other(first(x), tuple(map(first, kept)), emb))
            assert_same(called(one, x, kept, condition), expected)
        x = noise(2, 8, 8, 32)
        assert_same(called(ours.mid_block, x, condition), last(theirs.mid_block(first(x), emb)))
        one, other = ours.mid_block.attentions[0], theirs.mid_block.attentions[0]
        assert_same(called(one, x), last(other(first(x))))
        for one, other in zip(ours.mid_block.resnets, theirs.mid_block.resnets, strict=True):
            assert_same(called(one, x, condition), last(other(first(x), emb)))


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ({}, (8, 8, 4)),
        ({"layers_per_block": 2, "attention_head_dim": [2, 4], "use_linear_projection": True}, (6, 10, 4)),
    ],
)
def test_text_unet(tmp_path, settings, shape):
    theirs, ours = pair(tmp_path, "UNet2DConditionModel", **settings)
    image, text = noise(4, *shape), noise(4, 7, 24)
    with torch.no_grad():
        expected = last(theirs(first(image), given(STEPS), given(text)).sample)
    assert_same(called(ours, image, TIMES, text), expected)
    if not settings:
        assert_same(called(ours, image[3], TIMES[3], text[3]), expected[3])


def test_blocks_of_text_unet(tmp_path):
    theirs, ours = pair(tmp_path, "UNet2DConditionModel")
    x, text = noise(2, 8, 8, 16), noise(2, 7, 24)
    one, other = ours.down_blocks[0].attentions[0], theirs.down_blocks[0].attentions[0]
    with torch.no_grad():
        out = last(other(first(x), given(text)).sample)
        assert_same(called(one, x, text), out)
        one, other, tokens = one.transformer_blocks[0], other.transformer_blocks[0], x.reshape(2, 64, 16)
        out = other(given(tokens), encoder_hidden_states=given(text)).numpy()
        assert_same(called(one, tokens, text), out)
        assert_same(called(one.ff, tokens), other.ff(given(tokens)).numpy())


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ({}, (8, 8, 4)),
        (
            {"layers_per_block": 2, "shift_factor": 0.3, "scaling_factor": 0.5, "mid_block_add_attention": False},
            (3, 5, 4),
        ),
        (
            {"latent_channels": 16, "use_post_quant_conv": False, "use_quant_conv": False,
             "block_out_channels": (8, 16, 16), "down_block_types": ("DownEncoderBlock2D",) * 3,
             "up_block_types": ("UpDecoderBlock2D",) * 3},
            (2, 2, 16),
        ),
    ],
)  # fmt: skip
def test_autoencoder(tmp_path, settings, shape):
    theirs, ours = pair(tmp_path, "AutoencoderKL", **settings)
    latents = noise(2, *shape)
    config = theirs.config
    with torch.no_grad():
        expected = last(theirs.decode(first(latents) / config.scaling_factor + (config.shift_factor or 0)).sample)
    assert_same(called(ours, latents), expected)
    if not settings:
        assert_same(called(ours, latents[1]), expected[1])
        assert_same(called(ours, latents[None]), expected[None])
    edges = 2 ** (len(config.block_out_channels) - 1)
    assert expected.shape == (2, edges * shape[0], edges * shape[1], 3)


def test_blocks_of_autoencoder(tmp_path):
    theirs, ours = pair(tmp_path, "AutoencoderKL")
    x = noise(2, 4, 4, 32)
    with torch.no_grad():
        assert_same(called(ours.decoder.mid_block, x), last(theirs.decoder.mid_block(first(x))))
        for one, other in zip(ours.decoder.up_blocks, theirs.decoder.up_blocks, strict=True):
            assert_same(called(one, x), last(other(first(x))))


def test_samplers_ask_at_the_timesteps_of_diffusers(tmp_path):
    """The same denoiser along the same steps draws the same image, in order and several steps at once."""
    theirs, ours = pair(tmp_path, "DiTTransformer2DModel")
    scheduler = diffusers.DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
    scheduler.set_timesteps(8)
    start, label = noise(8, 8, 4), 3
    image = first(start[None])
    with torch.no_grad():
        for step in scheduler.timesteps:
            said = theirs(image, step[None], torch.tensor([label])).sample[:, :4]
            image = scheduler.step(said, step, image).prev_sample
    graph, state = nnx.split(ours)
    sampler = ddim(evenly(VariancePreserving(1000, "linear"), 8))

    @partial(jax.jit, static_argnums=0)
    def draw(solver, state):
        denoise = partial(nnx.merge(graph, state), label=jnp.int32(label))
        return solve(sampling_system_from(Denoiser(denoise, "epsilon"), sampler, initial_state(sampler, start)), solver)

    for solver in (Sequential(), Solver(Picard(), Within(1e-5), window=Sliding(4))):
        assert_same(draw(solver, state).final[0], last(image)[0], 2e-5)


PUBLISHED = {
    "DiTTransformer2DModel": {"out_channels": 8},  # DiT-XL/2 of 256 pixels
    "UNet2DModel": {  # google/ddpm-cifar10-32
        "act_fn": "silu", "attention_head_dim": None, "block_out_channels": (128, 256, 256, 256),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"), "downsample_padding": 0,
        "flip_sin_to_cos": False, "freq_shift": 1, "norm_eps": 1e-6, "sample_size": 32,
        "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    },
    "UNet2DConditionModel": {"cross_attention_dim": 768, "sample_size": 64},  # Stable Diffusion 1.5
    "AutoencoderKL": {  # Stable Diffusion's
        "block_out_channels": (128, 256, 512, 512), "down_block_types": ("DownEncoderBlock2D",) * 4,
        "layers_per_block": 2, "sample_size": 512, "up_block_types": ("UpDecoderBlock2D",) * 4,
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", PUBLISHED)
def test_full_size(kind, tmp_path):
    """Names and shapes of every tensor as published; no weight is made."""
    with torch.device("meta"):
        theirs = getattr(diffusers, kind)(**PUBLISHED[kind])
    theirs.save_config(tmp_path)
    tensors = {name: Tensor(tmp_path, tuple(found.shape), "F32", None) for name, found in theirs.state_dict().items()}
    family, module = abstract_module(Source(tmp_path / "config.json", ()))
    state = nnx.split(module)[1]
    assert len(places(state, tensors, family.spell, family.unused, tmp_path)) == len(jax.tree.leaves(state))


@pytest.mark.parametrize("kind", SMALL)
def test_onto_a_mesh(tmp_path, kind):
    _, ours = pair(tmp_path, kind)
    mesh = make_mesh(MeshConfig(fsdp=4, tensor=2))
    spread = load(tmp_path, mesh=mesh)
    sizes = [(leaf.size, leaf.addressable_shards[0].data.size) for leaf in jax.tree.leaves(nnx.state(spread))]
    whole, part = map(sum, zip(*sizes, strict=True))
    assert part < whole / 3  # small weights, as those next to pixels, are cut less
    image = noise(8, 8, 8, 3 if kind == "UNet2DModel" else 4)
    label = noise(8, 7, 24) if kind == "UNet2DConditionModel" else jnp.arange(8)
    inputs = (image,) if kind == "AutoencoderKL" else (image, jnp.tile(TIMES, 2), label)

    @nnx.jit
    def run(model):
        with activate(Partition(mesh, leading=("batch",))):
            return model(*inputs)

    assert_same(run(spread), called(ours, *inputs))
