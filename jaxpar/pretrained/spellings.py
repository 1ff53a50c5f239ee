"""How published files spell the paths of weights."""

from collections.abc import Collection, Mapping

from jaxpar.pretrained.places import Spelling

# A kernel's axes among those of its file: (outputs, inputs), and (outputs, inputs, height, width).
TRANSPOSED = {2: (1, 0), 4: (2, 3, 1, 0)}

# The last part of a weight's path, and what it is called in the files.
LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight", "bias": "bias"}

# Other parts of a path that diffusers spells otherwise; an empty one is left out.
PARTS = {
    "attention": "",
    "to_out": "to_out.0",
    "up": "net.0.proj",
    "down": "net.2",
    "downsample": "downsamplers.0.conv",
    "upsample": "upsamplers.0.conv",
}
# How the first published files spell the parts of attention among pixels.
OLD_PARTS = {**PARTS, "to_q": "query", "to_k": "key", "to_v": "value", "to_out": "proj_attn"}


def by_diffusers(path: tuple, shape: tuple[int, ...], tensors: Collection[str]) -> Spelling:
    """As diffusers' files do today, or, where they have that instead, as they first did."""
    *parts, leaf = map(str, path)

    def spelt(spellings: Mapping[str, str]) -> str:
        return ".".join([*filter(None, (spellings.get(part, part) for part in parts)), LEAVES[leaf]])

    today, old = spelt(PARTS), spelt(OLD_PARTS)
    name = old if "attention" in parts and today not in tensors and old in tensors else today
    return Spelling(name, _order(leaf, shape))


# Parts of a path that apple/ml-tarflow spells otherwise; within a transformation and within its layers.
FLOW_PARTS = {"read": "proj_in", "write": "proj_out", "place": "pos_embed", "label": "class_embed"}
LAYER_PARTS = {
    "attention_norm": "attention.norm",
    "mlp_norm": "mlp.norm",
    "out": "proj",
    "up": "main.0",
    "down": "main.2",
}
FUSED = {"query": 0, "key": 1, "value": 2}


def by_tarflow(path: tuple, shape: tuple[int, ...], tensors: Collection[str]) -> Spelling:
    """As apple/ml-tarflow's files do: queries, keys and values in one tensor."""
    blocks, number, *rest = map(str, path)
    leaf = rest[-1]
    if rest[0] != "blocks":
        parts = [FLOW_PARTS[rest[0]], *(LEAVES[leaf] for _ in rest[1:])]
        return Spelling(".".join([blocks, number, *parts]), _order(leaf, shape))
    _, layer, *parts, leaf = rest
    fused = FUSED.get(parts[-1])
    spelt = ["qkv" if part in FUSED else LAYER_PARTS.get(part, part) for part in parts]
    name = ".".join([blocks, number, "attn_blocks", layer, *spelt, LEAVES[leaf]])
    return Spelling(name, _order(leaf, shape), fused or 0, 1 if fused is None else len(FUSED))


def _order(leaf: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    return TRANSPOSED[len(shape)] if leaf == "kernel" else tuple(range(len(shape)))
