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

    def spell(spellings: Mapping[str, str]) -> str:
        return ".".join([*filter(None, (spellings.get(part, part) for part in parts)), LEAVES[leaf]])

    today, old = spell(PARTS), spell(OLD_PARTS)
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
    words = ["qkv" if part in FUSED else LAYER_PARTS.get(part, part) for part in parts]
    name = ".".join([blocks, number, "attn_blocks", layer, *words, LEAVES[leaf]])
    return Spelling(name, _order(leaf, shape), fused or 0, 1 if fused is None else len(FUSED))


GPT2_PARTS = {
    "attention_norm": "ln_1",
    "mlp_norm": "ln_2",
    "attention": "attn",
    "out": "c_proj",
    "up": "c_fc",
    "down": "c_proj",
}
GPT2_ENDS = {"embed": "wte.weight", "place": "wpe.weight"}


def by_gpt2(path: tuple, shape: tuple[int, ...], tensors: Collection[str]) -> Spelling:
    """As OpenAI's GPT-2 has it in transformers' files: kernels are (inputs, outputs), with or without a first word."""
    first, *rest = map(str, path)
    straight = tuple(range(len(shape)))
    before = "transformer." if any(name.startswith("transformer.") for name in tensors) else ""
    if first in GPT2_ENDS:
        return Spelling(before + GPT2_ENDS[first], straight)
    if first == "norm":
        return Spelling(f"{before}ln_f.{LEAVES[rest[-1]]}", straight)
    if first == "head":
        return Spelling("lm_head.weight", _order(rest[-1], shape))
    number, *parts, leaf = rest
    fused = FUSED.get(parts[-1])
    words = ["c_attn" if part in FUSED else GPT2_PARTS.get(part, part) for part in parts]
    name = ".".join([f"{before}h", number, *words, LEAVES[leaf]])
    return Spelling(name, straight, fused or 0, 1 if fused is None else len(FUSED))


LLAMA_PARTS = {
    "attention_norm": "input_layernorm",
    "mlp_norm": "post_attention_layernorm",
    "attention": "self_attn",
    "query": "q_proj",
    "key": "k_proj",
    "value": "v_proj",
    "out": "o_proj",
    "query_norm": "q_norm",
    "key_norm": "k_norm",
    "gate": "gate_proj",
    "up": "up_proj",
    "down": "down_proj",
}
LLAMA_ENDS = {"embed": "model.embed_tokens", "norm": "model.norm", "head": "lm_head"}


def by_llama(path: tuple, shape: tuple[int, ...], tensors: Collection[str]) -> Spelling:
    """As Llama, Mistral and Qwen have it in transformers' files."""
    first, *rest = map(str, path)
    leaf = rest[-1]
    if first in LLAMA_ENDS:
        return Spelling(f"{LLAMA_ENDS[first]}.{LEAVES[leaf]}", _order(leaf, shape))
    number, *parts, _ = rest
    name = ".".join(["model.layers", number, *(LLAMA_PARTS.get(part, part) for part in parts), LEAVES[leaf]])
    return Spelling(name, _order(leaf, shape))


def _order(leaf: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    return TRANSPOSED[len(shape)] if leaf == "kernel" else tuple(range(len(shape)))
