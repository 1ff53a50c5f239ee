"""Attention by kept kernels, which hold no scores: splash attention on TPUs, cuDNN's on NVIDIA's GPUs.

Both compute softmax(q k^T / sqrt(size)) v a block of keys at a time (arXiv 2205.14135), forward and backward. Which one
is for a device and a shape is said here; `jaxpar.sharding.attention` shares batch and heads out over a mesh.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxpar.errors import InputError
from jaxpar.sharding.ring import Blocks

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


def kernel_for(platform: str, kernel: str, length: int, size: int, words: int, dtype: jnp.dtype) -> str:
    """The kernel for queries of these shapes: "plain", "splash" or "cudnn".

    Args:
      length, size: positions that a device has of them, and numbers of a head.
      words: positions that they attend to.

    Raises InputError for one by name that is for other devices, or not for these shapes.
    """
    check_kernel(platform, kernel)
    if kernel == "plain":
        return kernel
    for name, where in PLATFORMS.items():
        if where == platform and (lack := _lacks(name, length, size, words, dtype)) is None:
            return name
        if kernel == name:
            raise InputError(f"mesh.kernel={kernel} is not for {lack}; take auto, which takes plain there")
    return "plain"


def check_kernel(platform: str, kernel: str) -> None:
    """Raises InputError for a kernel by name that is for other devices."""
    if PLATFORMS.get(kernel, platform) != platform:
        raise InputError(f"mesh.kernel={kernel} is for {PLATFORMS[kernel]}s, and this is a {platform}; take auto")


def _lacks(kernel: str, length: int, size: int, words: int, dtype: jnp.dtype) -> str | None:
    """What of these shapes a kernel does not do."""
    if words != length:
        return "queries that attend to another length than their own"
    if kernel == "splash":
        if length % LANES or size % LANES:
            return f"{length} positions and heads of {size} numbers, of which either is no multiple of {LANES}"
        return None
    if dtype not in (jnp.bfloat16, jnp.float16):
        return f"{dtype}"
    return None if size % 8 == 0 and size <= 128 else f"heads of {size} numbers"


def attended(kernel: str, query: Queries, key: Context, value: Context, causal: bool) -> Queries:
    """Attention on one device by a kernel of this name; any number of batch axes."""
    flat = _flat(query, key, value)
    if kernel == "splash":
        return splash(flat[0], flat[1], flat[2], causal).reshape(query.shape)
    attend = partial(jax.nn.dot_product_attention, is_causal=causal)
    output = attend(*flat, implementation="cudnn") if kernel == "cudnn" else attend(*flat)
    return output.reshape(query.shape)


def splash(query: Array, key: Array, value: Array, causal: bool, interpret: bool = False) -> Array:
    """JAX's splash attention of (batch, length, heads, size); `interpret` runs it step by step where no TPU is."""
    kernel = _kernel(query, causal, interpret, residual_checkpoint_name=ATTENDED)
    return _turned(jax.vmap(kernel)(*_heads_first(query, key, value))).astype(query.dtype)


def splash_block(query: Array, key: Array, value: Array, causal: bool, interpret: bool = False) -> tuple[Array, Array]:
    """The same of any number of batch axes, and the log-sum-exp of its scores (..., length, heads)."""
    kernel = _kernel(query, causal, interpret, save_residuals=True)
    out, (logsumexp,) = jax.vmap(kernel)(*_heads_first(*_flat(query, key, value)))
    return _turned(out).reshape(query.shape), jnp.swapaxes(logsumexp, 1, 2).reshape(query.shape[:-1])


def splash_slopes(
    query: Array,
    key: Array,
    value: Array,
    out: Array,
    logsumexp: Array,
    slope: Array,
    causal: bool,
    interpret: bool = False,
) -> tuple[Array, Array, Array]:
    """Derivatives by query, key and value, of which `out` and `logsumexp` may hold more than this block.

    JAX keeps its backward kernels for the derivative of a whole attention, whose outputs and log-sum-exp it hands them;
    here they are handed those of the ring.
    """
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel

    kernel = _kernel(query, causal, interpret)
    *arrays, out, slope = _heads_first(*_flat(query, key, value, out, slope))
    sums = jnp.swapaxes(logsumexp.reshape(-1, *logsumexp.shape[-2:]), 1, 2)

    def one(arrays: list[Array], out: Array, logsumexp: Array, slope: Array) -> tuple[Array, Array, Array]:
        masks = kernel.dq_mask_info, kernel.dkv_mask_info
        settings = {name: kernel.kwargs[name] for name in _NOT_DIFFERENTIATED}
        saved = *arrays, None, None, out, logsumexp, *masks
        return splash_attention_kernel._splash_attention_bwd(**settings, res=saved, do=slope)[3:6]

    dquery, dkey, dvalue = jax.vmap(one)(arrays, out, sums, slope)
    scaled = _turned(dquery).reshape(query.shape) * query.shape[-1] ** -0.5
    return scaled, _turned(dkey).reshape(key.shape), _turned(dvalue).reshape(value.shape)


SPLASH = Blocks(splash_block, splash_slopes)
_NOT_DIFFERENTIATED = (
    "save_residuals", "mask_value", "is_mqa", "block_sizes", "residual_checkpoint_name", "mask_function",
    "attn_logits_soft_cap", "interpret",
)  # fmt: skip


def _flat(*arrays: Array) -> list[Array]:
    """With one batch axis."""
    return [x.reshape(-1, *x.shape[-3:]) for x in arrays]


def _heads_first(query: Array, *others: Array) -> list[Array]:
    """(batch, heads, length, size), of queries scaled."""
    return [_turned(x) for x in (query * query.shape[-1] ** -0.5, *others)]


def _turned(x: Array) -> Array:
    return jnp.swapaxes(x, 1, 2)


def _kernel(query: Array, causal: bool, interpret: bool, **more: Any) -> Any:
    """Of queries (..., length, heads, size) that attend to as many positions."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel, splash_attention_mask

    length, heads = query.shape[-3:-1]
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
    return splash_attention_kernel.make_splash_mha(
        splash_attention_mask.MultiHeadMask([kind((length, length))] * heads),
        block_sizes=blocks,
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
        **more,
    )
