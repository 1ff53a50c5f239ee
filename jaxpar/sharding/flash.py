"""Attention by kept kernels, which hold no scores: splash attention on TPUs, cuDNN's on NVIDIA's GPUs.

Both compute softmax(q k^T / sqrt(size)) v a block of keys at a time (arXiv 2205.14135), forward and backward. Which one
is for a device and a shape is said here; `jaxpar.sharding.attention` shares batch and heads out over a mesh.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxpar.errors import InputError

KERNELS = ("auto", "plain", "splash", "cudnn")
"""What attends on each device: the kernel made for it where shapes allow that, XLA's own operations, or one by name."""
ATTENDED = "attended"
"""What splash attention's output is called, which a backward pass may keep."""
PLATFORMS = {"splash": "tpu", "cudnn": "gpu"}
BLOCKS = (1024, 512, 256, 128)
"""Positions that splash attention takes at a time, the most that divide a length."""
LANES = 128
"""Of a TPU's vectors: lengths and heads are multiples of them."""

Queries = Float[Array, "*batch length heads size"]
Keys = Float[Array, "*batch length kv_heads size"]
Context = Float[Array, "*batch words kv_heads size"]


def kernel_for(platform: str, kernel: str, query: Queries, key: Keys) -> str:
    """The kernel for these shapes: "plain", "splash" or "cudnn".

    Raises InputError for one by name that is for other devices, or not for these shapes.
    """
    check_kernel(platform, kernel)
    if kernel == "plain":
        return kernel
    for name, where in PLATFORMS.items():
        if where == platform and (lack := _lacks(name, query, key)) is None:
            return name
        if kernel == name:
            raise InputError(f"mesh.kernel={kernel} is not for {lack}; take auto, which takes plain there")
    return "plain"


def check_kernel(platform: str, kernel: str) -> None:
    """Raises InputError for a kernel by name that is for other devices."""
    if PLATFORMS.get(kernel, platform) != platform:
        raise InputError(f"mesh.kernel={kernel} is for {PLATFORMS[kernel]}s, and this is a {platform}; take auto")


def _lacks(kernel: str, query: Queries, key: Keys) -> str | None:
    """What of these shapes a kernel does not do."""
    length, size = query.shape[-3], query.shape[-1]
    if key.shape[-3] != length:
        return "queries that attend to another length than their own"
    if kernel == "splash":
        if length % LANES or size % LANES:
            return f"{length} positions and heads of {size} numbers, of which either is no multiple of {LANES}"
        return None
    if query.dtype not in (jnp.bfloat16, jnp.float16):
        return f"{query.dtype}"
    return None if size % 8 == 0 and size <= 128 else f"heads of {size} numbers"


def attended(kernel: str, query: Queries, key: Context, value: Context, causal: bool) -> Queries:
    """Attention on one device by a kernel of this name; any number of batch axes."""
    flat = [x.reshape(-1, *x.shape[-3:]) for x in (query, key, value)]
    if kernel == "splash":
        return splash(flat[0], flat[1], flat[2], causal).reshape(query.shape)
    attend = partial(jax.nn.dot_product_attention, is_causal=causal)
    output = attend(*flat, implementation="cudnn") if kernel == "cudnn" else attend(*flat)
    return output.reshape(query.shape)


def splash(query: Array, key: Array, value: Array, causal: bool, interpret: bool = False) -> Array:
    """JAX's splash attention of (batch, length, heads, size); `interpret` runs it step by step where no TPU is."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel, splash_attention_mask

    length, heads, size = query.shape[1:]
    block = next(block for block in BLOCKS if length % block == 0)
    back = min(block, 512)
    blocks = splash_attention_kernel.BlockSizes(
        block_q=block,
        block_kv=block,
        block_kv_compute=block,
        block_q_dkv=back,
        block_kv_dkv=back,
        block_kv_dkv_compute=back,
        block_q_dq=back,
        block_kv_dq=back,
    )
    kind = splash_attention_mask.CausalMask if causal else splash_attention_mask.FullMask
    kernel = splash_attention_kernel.make_splash_mha(
        splash_attention_mask.MultiHeadMask([kind((length, length))] * heads),
        block_sizes=blocks,
        head_shards=1,
        q_seq_shards=1,
        residual_checkpoint_name=ATTENDED,
        interpret=interpret,
    )
    turned = [jnp.swapaxes(x, 1, 2) for x in (query * size**-0.5, key, value)]  # heads before the length
    return jnp.swapaxes(jax.vmap(kernel)(*turned), 1, 2).astype(query.dtype)
