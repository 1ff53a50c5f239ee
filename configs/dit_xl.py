"""Published denoisers, and what steps in parallel are worth to them: DiT-XL/2 for images of 256 pixels.

Without a checkpoint the weights are random: 750 million in the published layout, in which every block has a copy of the
embedding (DiT, arXiv 2212.09748: 675 million, 118.6 billion multiplications an evaluation). What an evaluation costs
does not depend on them. DiT's training starts from gates at zero, which pass over all blocks; here all matrices are
normal, so that every block counts. What is said is taken for v, by which an image keeps its size and the chain
contracts enough for a few rounds; taken for epsilon, noise that is never foretold would grow 157 times along the chain.

COMMAND: python -m experiments.sample --config=configs/dit_xl.py --workdir=runs/dit_xl

With the published weights, in diffusers' folders or by their name on the hub (extra `jaxpar[hub]`), a corgi and a
golden retriever, each with the guidance of the paper's pictures:
--config.weights.path=facebook/DiT-XL-2-256 --config.weights.part=transformer
--config.weights.decoder=facebook/DiT-XL-2-256 --config.weights.decoder_part=vae
--config.labels=263,207 --config.sampler.guidance=4
"""

from experiments.published.config import Published
from jaxpar import InputError


def get_config(variant: str = "") -> Published:
    """The experiment; `:tiny` takes seconds, `:ddpm_cifar10` and `:sd15` are the shapes of other published models."""
    config = Published(name="dit_xl")
    if variant == "tiny":
        sizes = config.random.dit
        sizes.size = config.size = 8
        sizes.heads, sizes.head_size, sizes.blocks, sizes.classes = 2, 16, 2, 10
        config.sampler.steps, config.solver.size, config.solver.span = 24, 8, 4
        config.contest.steps, config.contest.windows, config.contest.images = (12,), (4,), 3
    elif variant == "ddpm_cifar10":
        config.random.kind = "unet"
    elif variant == "sd15":
        config.random.kind, config.size, config.diffusion.schedule = "unet", 64, "scaled-linear"
        sizes = config.random.unet
        sizes.image_channels, sizes.text, sizes.epsilon, sizes.heads = 4, 768, 1e-5, (8, 8, 8, 8)
        sizes.channels = (320, 640, 1280, 1280)
        sizes.attention_down, sizes.attention_up = (True, True, True, False), (False, True, True, True)
        sizes.frequency_shift, sizes.cosine_first, sizes.downsample_padding = 0, True, 1
    elif variant:
        raise InputError(f"configs/dit_xl.py has no variant {variant!r}; it has: tiny, ddpm_cifar10, sd15")
    return config
