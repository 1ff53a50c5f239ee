"""Published language models: what ends their texts, ties of their ends, settings of rotary positions, links,
weights in bfloat16, sliding windows."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from jaxpar import InputError
from jaxpar.decoding import PromptLookup, decode
from jaxpar.documents import LARGEST, read_object
from jaxpar.models import Compute
from jaxpar.pretrained import end_tokens, load
from tests.malformed.weights import INDEX, LLAMA, tensors, whole
from tests.refusals import refusal
from tests.stages import crossed, slowly


@pytest.mark.parametrize(
    ("config", "generation", "ends"),
    [
        ({"eos_token_id": 1}, {"eos_token_id": [1, 9]}, (1, 9)),
        ({"eos_token_id": 1}, {"eos_token_id": 9}, (9,)),
        ({"eos_token_id": [1, 2]}, {"eos_token_id": None}, (1, 2)),
        ({"eos_token_id": 0}, {}, (0,)),
        ({"eos_token_id": [3]}, None, (3,)),
        ({"eos_token_id": None}, None, ()),
        ({}, None, ()),
    ],
)
def test_tokens_that_end_a_text(tmp_path, config, generation, ends):
    """As transformers' generate reads them: generation_config.json's, where it is there and names some."""
    (tmp_path / "config.json").write_text(json.dumps(config))
    if generation is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(generation))
    save_file({"x": np.zeros(1, np.float32)}, tmp_path / "model.safetensors")
    assert end_tokens(tmp_path) == ends


def written(folder, settings, inside):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(settings))
    save_file(inside, folder / "model.safetensors")
    return folder


GPT2 = {
    "architectures": ["GPT2LMHeadModel"], "vocab_size": 16, "n_embd": 8, "n_head": 2, "n_layer": 1, "n_positions": 32,
}  # fmt: skip


def gpt2_tensors(prefix):
    random = np.random.default_rng(1)
    shapes = {"wte.weight": (16, 8), "wpe.weight": (32, 8)}
    for norm in ("h.0.ln_1", "h.0.ln_2", "ln_f"):
        shapes |= {f"{norm}.weight": (8,), f"{norm}.bias": (8,)}
    for name, size in (
        ("attn.c_attn", (8, 24)),
        ("attn.c_proj", (8, 8)),
        ("mlp.c_fc", (8, 32)),
        ("mlp.c_proj", (32, 8)),
    ):
        shapes |= {f"h.0.{name}.weight": size, f"h.0.{name}.bias": size[1:]}
    return {prefix + name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gpt2 with a first word"])
def test_of_tied_ends_either_may_be_stored(tmp_path, kind):
    settings, inside = {
        "llama": (LLAMA, tensors()),
        "gpt2": (GPT2, gpt2_tensors("")),
        "gpt2 with a first word": (GPT2, gpt2_tensors("transformer.")),
    }[kind]
    embedding = next(name for name in inside if name.endswith(("embed_tokens.weight", "wte.weight")))
    both = inside | {"lm_head.weight": inside[embedding]}
    stored = {"both": both, "embedding": dict(both), "head": dict(both)}
    del stored["embedding"]["lm_head.weight"], stored["head"][embedding]
    tied = settings | {"tie_word_embeddings": True}
    logits = [load(written(tmp_path / name, tied, each))(jnp.arange(5)) for name, each in stored.items()]
    np.testing.assert_array_equal(logits[0], logits[1])
    np.testing.assert_array_equal(logits[0], logits[2])
    untied = written(tmp_path / "untied", settings | {"tie_word_embeddings": False}, stored["head"])
    with pytest.raises(InputError, match=f"lacks the tensor {embedding}"):
        load(untied)


def test_rotary_settings_in_either_spelling_or_both_alike(tmp_path):
    stretch = {
        "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16,
    }  # fmt: skip
    now = {"rope_type": "llama3", "rope_theta": 5e5, **stretch}
    ways = [
        {"rope_parameters": now},
        {"rope_theta": 500_000, "rope_scaling": {"type": "llama3", **stretch}},
        {
            "rope_theta": 5e5,
            "rope_scaling": {"rope_type": "llama3", "type": "llama3", **stretch},
            "rope_parameters": now,
        },
    ]
    logits = []
    for number, way in enumerate(ways):
        model = load(written(tmp_path / str(number), LLAMA | way, tensors()))
        logits.append(model(jnp.arange(20) % 16))
    np.testing.assert_array_equal(logits[0], logits[1])
    np.testing.assert_array_equal(logits[0], logits[2])
    plain = load(written(tmp_path / "plain", LLAMA | {"rope_theta": None, "rope_scaling": None}, tensors()))
    assert float(jnp.abs(plain(jnp.arange(20) % 16) - logits[0]).max()) > 1e-3


def test_links_of_the_hubs_cache_are_followed(tmp_path):
    """models--OWNER--NAME/snapshots/REVISION/FILE is a link to models--OWNER--NAME/blobs/HASH."""
    cache = tmp_path / "models--owner--name"
    blobs, snapshot = cache / "blobs", cache / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    names = [*tensors()]
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for number, (file, inside) in enumerate(shards.items()):
        save_file({name: tensors()[name] for name in inside}, blobs / f"hash{number}")
        (snapshot / file).symlink_to(f"../../blobs/hash{number}")
    (snapshot / "config.json").write_text(json.dumps(LLAMA))
    places = {name: file for file, inside in shards.items() for name in inside}
    (snapshot / INDEX).write_text(json.dumps({"weight_map": places}))
    (tmp_path / "link").symlink_to(snapshot)
    whole_folder = tmp_path / "whole"
    whole_folder.mkdir()
    whole(whole_folder)
    want = load(whole_folder)(jnp.arange(5))
    for folder in (snapshot, tmp_path / "link"):
        np.testing.assert_array_equal(load(folder)(jnp.arange(5)), want)
    (blobs / "hash0").rename(tmp_path / "elsewhere")
    (snapshot / "a.safetensors").unlink()
    (snapshot / "a.safetensors").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"'a.safetensors', a link to elsewhere; it must be a file in that folder"):
        load(snapshot)


def test_arguments_and_files_that_are_none(tmp_path):
    whole(tmp_path)
    for name in (5, None, b"x", ["x"], 2.5):
        assert refusal(lambda name=name: load(name)).startswith("name is ")
        assert refusal(lambda name=name: end_tokens(name)).startswith("name is ")
    assert refusal(lambda: load(tmp_path, part=3)).startswith("part is 3; it must be the name of a sub-folder")
    assert refusal(lambda: load(tmp_path, mesh="fsdp")).startswith("mesh is 'fsdp'; it must be a mesh")
    assert refusal(lambda: load(tmp_path, compute="bfloat16")).startswith("compute is 'bfloat16'; it must be a Compute")
    assert "no file and no folder" in refusal(lambda: load("a\0b"))
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(LARGEST + 1)  # a hole, which takes no room on the disk
    assert "is too large; of JSON files at most" in refusal(lambda: read_object(tmp_path / "config.json"))


def in_bfloat16(inside):
    return {name: value.astype(jnp.bfloat16) for name, value in inside.items()}


@crossed(kind=["llama", *slowly(["gpt2"])], dtype=["bfloat16", *slowly(["float32"])])
def test_weights_kept_as_published_change_no_number(kind, dtype, tmp_path):
    settings, inside = {"llama": (LLAMA, tensors()), "gpt2": (GPT2, gpt2_tensors(""))}[kind]
    folder = written(tmp_path / "narrow", settings, in_bfloat16(inside))
    tokens, compute = jnp.arange(12) % 16, Compute(dtype=dtype)
    widened = load(folder, compute=compute)
    kept = load(folder, compute=compute, weights="published")
    for _, leaf in nnx.to_flat_state(nnx.state(kept)):
        assert leaf.get_value().dtype == (jnp.bfloat16 if leaf.get_value().ndim > 1 else jnp.float32)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(nnx.state(widened)))
    prompt, count = tokens[None, :4], jnp.asarray([4])
    with jax.numpy_dtype_promotion("standard"):  # jax' own attention promotes
        np.testing.assert_array_equal(kept(tokens), widened(tokens))
        texts = [decode(model, prompt, count, 6, PromptLookup(2, 2)).tokens for model in (kept, widened)]
    np.testing.assert_array_equal(*texts)


def test_of_weights_in_float32_none_is_narrowed(tmp_path):
    kept = load(written(tmp_path / "wide", LLAMA, tensors()), weights="published")
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(nnx.state(kept)))
    assert refusal(lambda: load(tmp_path / "wide", weights="float16")).startswith("unknown weights 'float16'")


MISTRAL = LLAMA | {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "num_key_value_heads": 2}


def test_mistral_is_llama_within_its_window(tmp_path):
    inside, tokens = tensors(), jnp.arange(10) % 16
    wanted = load(written(tmp_path / "llama", LLAMA, inside))(tokens)
    plain = load(written(tmp_path / "whole", MISTRAL | {"sliding_window": None}, inside))
    slides = load(written(tmp_path / "slides", MISTRAL | {"sliding_window": 10}, inside))
    for model in (plain, slides):
        np.testing.assert_array_equal(model(tokens), wanted)
    assert plain(jnp.arange(12) % 16).shape == (12, 16)
    with pytest.raises(InputError, match=r"^a sequence of 11 tokens reaches beyond 10, the model's sliding window"):
        slides(jnp.arange(11) % 16)
    with pytest.raises(InputError, match="do not fit the model's context of 10"):
        decode(slides, tokens[None, :8], jnp.asarray([8]), 3)
    for wrong in (0, 2.5, "all"):
        folder = written(tmp_path / f"wrong {wrong}", MISTRAL | {"sliding_window": wrong}, inside)
        assert "sliding_window = " in refusal(lambda folder=folder: load(folder))
