"""The language model against transformers' Llama and GPT-2, with the same random weights."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxpar.models import TransformerConfig, build_transformer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZES = {"vocabulary": 40, "length": 24, "width": 32, "heads": 4, "blocks": 2}
TOKENS = np.random.default_rng(0).integers(0, 40, (3, 20))


def set_weights(module, found):
    """Copies torch arrays, by our names, into a model; every weight must be met."""
    graph, state = nnx.split(module)
    flat = {".".join(map(str, path)): leaf for path, leaf in nnx.to_flat_state(state)}
    assert flat.keys() == found.keys()
    for name, value in found.items():
        assert flat[name].shape == value.shape, name
        flat[name][...] = jnp.asarray(value.detach().numpy())
    return nnx.merge(graph, state)


def shaken(model):
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return model.eval()


def logits(model):
    with torch.no_grad():
        return model(torch.from_numpy(TOKENS)).logits.numpy()


def test_llama():
    config = transformers.LlamaConfig(
        vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=24, rms_norm_eps=1e-5, tie_word_embeddings=False,
        rope_theta=10_000.0,
    )  # fmt: skip
    theirs = shaken(transformers.LlamaForCausalLM(config))
    found = {"embed.embedding": theirs.model.embed_tokens.weight, "norm.scale": theirs.model.norm.weight,
             "head.kernel": theirs.lm_head.weight.T}  # fmt: skip
    for i, layer in enumerate(theirs.model.layers):
        for ours, weight in (("query", layer.self_attn.q_proj), ("key", layer.self_attn.k_proj),
                             ("value", layer.self_attn.v_proj), ("out", layer.self_attn.o_proj)):  # fmt: skip
            found[f"blocks.{i}.attention.{ours}.kernel"] = weight.weight.T
        for ours, weight in (("gate", layer.mlp.gate_proj), ("up", layer.mlp.up_proj), ("down", layer.mlp.down_proj)):
            found[f"blocks.{i}.mlp.{ours}.kernel"] = weight.weight.T
        found[f"blocks.{i}.attention_norm.scale"] = layer.input_layernorm.weight
        found[f"blocks.{i}.mlp_norm.scale"] = layer.post_attention_layernorm.weight
    sizes = TransformerConfig(**SIZES, hidden=48, kv_heads=2, tied=False)
    ours = set_weights(build_transformer(sizes, nnx.Rngs(0)), found)
    np.testing.assert_allclose(ours(jnp.asarray(TOKENS, jnp.int32)), logits(theirs), atol=2e-5)


def test_gpt2():
    config = transformers.GPT2Config(vocab_size=40, n_positions=24, n_embd=32, n_layer=2, n_head=4, n_inner=128)
    theirs = shaken(transformers.GPT2LMHeadModel(config))
    body = theirs.transformer
    found = {"embed.embedding": body.wte.weight, "place": body.wpe.weight,
             "norm.scale": body.ln_f.weight, "norm.bias": body.ln_f.bias}  # fmt: skip
    for i, layer in enumerate(body.h):
        names = {"attention.out": layer.attn.c_proj, "mlp.up": layer.mlp.c_fc, "mlp.down": layer.mlp.c_proj}
        for name, weight in names.items():
            found[f"blocks.{i}.{name}.kernel"] = weight.weight
            found[f"blocks.{i}.{name}.bias"] = weight.bias
        for name, kernel, bias in zip(("query", "key", "value"), layer.attn.c_attn.weight.split(32, dim=1),
                                      layer.attn.c_attn.bias.split(32), strict=True):  # fmt: skip
            found[f"blocks.{i}.attention.{name}.kernel"] = kernel
            found[f"blocks.{i}.attention.{name}.bias"] = bias
        for name, norm in (("attention_norm", layer.ln_1), ("mlp_norm", layer.ln_2)):
            found[f"blocks.{i}.{name}.scale"] = norm.weight
            found[f"blocks.{i}.{name}.bias"] = norm.bias
    sizes = TransformerConfig(**SIZES, hidden=128, kv_heads=4, norm="layer", positions="learned", mlp="gelu", bias=True)
    ours = set_weights(build_transformer(sizes, nnx.Rngs(0)), found)
    np.testing.assert_allclose(ours(jnp.asarray(TOKENS, jnp.int32)), logits(theirs), atol=2e-5)
