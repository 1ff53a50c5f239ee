"""Malformed folders of published weights, and malformed plans of a flow's inverse."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tests.malformed.case import Case

LLAMA = {
    "architectures": ["LlamaForCausalLM"], "vocab_size": 16, "hidden_size": 8, "intermediate_size": 8,
    "num_attention_heads": 2, "num_hidden_layers": 1, "max_position_embeddings": 32, "eos_token_id": 2,
}  # fmt: skip
DIT = {
    "_class_name": "DiTTransformer2DModel", "num_attention_heads": 2, "attention_head_dim": 4, "num_layers": 1,
    "out_channels": 8, "num_embeds_ada_norm": 10,
}  # fmt: skip
LAYER = "model.layers.0."
SHAPES = {
    "model.embed_tokens": (16, 8), "model.norm": (8,), "lm_head": (16, 8), f"{LAYER}input_layernorm": (8,),
    f"{LAYER}post_attention_layernorm": (8,), f"{LAYER}self_attn.q_proj": (8, 8), f"{LAYER}self_attn.k_proj": (8, 8),
    f"{LAYER}self_attn.v_proj": (8, 8), f"{LAYER}self_attn.o_proj": (8, 8), f"{LAYER}mlp.gate_proj": (8, 8),
    f"{LAYER}mlp.up_proj": (8, 8), f"{LAYER}mlp.down_proj": (8, 8),
}  # fmt: skip
INDEX = "model.safetensors.index.json"
Make = Callable[[Path], None]


def tensors() -> dict[str, np.ndarray]:
    """Of the language model of LLAMA."""
    random = np.random.default_rng(0)
    return {f"{name}.weight": random.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def whole(folder: Path, **changes: Any) -> None:
    """A folder in which nothing is wrong but what is changed in its config.json."""
    (folder / "config.json").write_text(json.dumps(LLAMA | changes))
    save_file(tensors(), folder / "model.safetensors")


def but(file: str, content: str | bytes) -> Make:
    """A whole folder but for the content of one file."""

    def make(folder: Path) -> None:
        whole(folder)
        (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())

    return make


def changed(**changes: Any) -> Make:
    return lambda folder: whole(folder, **changes)


def without(name: str, **instead: np.ndarray) -> Make:
    """A whole folder but for one tensor, and what stands there instead."""

    def make(folder: Path) -> None:
        whole(folder)
        save_file(
            {key: value for key, value in tensors().items() if key != name} | instead, folder / "model.safetensors"
        )

    return make


def cut(count: int) -> Make:
    """The weights cut short."""

    def make(folder: Path) -> None:
        whole(folder)
        (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:count])

    return make


def indexed(*files: str, **made: dict[str, np.ndarray]) -> Make:
    """An index that names these files, of which some are made."""

    def make(folder: Path) -> None:
        whole(folder)
        (folder / "model.safetensors").unlink()
        for name, inside in made.items():
            save_file(inside, folder / f"{name}.safetensors")
        places = {f"tensor {number}": file for number, file in enumerate(files)}
        (folder / INDEX).write_text(json.dumps({"weight_map": places}))

    return make


def linked(folder: Path) -> None:
    """An index that names a link out of the folder."""
    indexed("a.safetensors")(folder)
    (folder / "a.safetensors").symlink_to("/etc/passwd")


def a_folder_for(name: str) -> Make:
    def make(folder: Path) -> None:
        whole(folder)
        (folder / name).unlink(missing_ok=True)
        (folder / name).mkdir()

    return make


def pipe(folder: Path) -> None:
    whole(folder)
    os.mkfifo(folder / "generation_config.json")


def language(name: str, says: str, make: Make) -> Case:
    return Case(name, "generate", ("--config=configs/generate.py:tiny", "--config.path={folder}"), says, make)


def denoiser(name: str, says: str, **changes: Any) -> Case:
    """A published denoiser with one tensor and these settings."""

    def make(folder: Path) -> None:
        (folder / "config.json").write_text(json.dumps(DIT | changes))
        save_file({"a": np.zeros(1, np.float32)}, folder / "model.safetensors")

    return Case(name, "sample", ("--config=configs/dit_xl.py:tiny", "--config.weights.path={folder}"), says, make)


def plan(name: str, says: str, content: str) -> Case:
    """A saved plan of this content."""
    words = ("--config=configs/tarflow.py:tiny", "--config.inverse.plan=saved", "--workdir={folder}")

    def make(folder: Path) -> None:
        (folder / "plan.json").write_text(content)

    return Case(name, "invert", words, says, make)


def block(**changes: Any) -> str:
    """A plan of one block."""
    row = {"window": 4, "atol": 1e-5, "start": "noise", "refine": "jacobi"} | changes
    return json.dumps({"blocks": [{name: value for name, value in row.items() if value is not None}]})


YARN = {"rope_type": "yarn", "factor": 4.0}
PLAIN = {"rope_type": "default", "rope_theta": 1e4}
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
NESTED = '{"a":' * 200_000

SETTINGS = [
    language("yarn beside rope_parameters", "is not implemented; the types default and llama3 are",
             changed(rope_scaling=YARN, rope_parameters=PLAIN)),
    language("rope settings for each type of layer", "one setting for the layers of all types is",
             changed(rope_parameters={"full_attention": PLAIN, "sliding_attention": PLAIN})),
    language("rope settings that disagree", "says two things at once", changed(rope_theta=5e5, rope_parameters=PLAIN)),
    language("two stretches of rope", "says two things at once", changed(rope_scaling=LLAMA3, rope_parameters=PLAIN)),
    language("an unknown setting of rope", "rope_scaling.attention_factor = 1.5 is not implemented",
             changed(rope_scaling=LLAMA3 | {"attention_factor": 1.5})),
    language("a stretch of rope without frequencies", "must have a low_freq_factor below its high_freq_factor",
             changed(rope_scaling=LLAMA3 | {"high_freq_factor": 1.0})),
    language("a rope factor that is true", "rope_scaling.factor = True must be a number above 0",
             changed(rope_scaling=LLAMA3 | {"factor": True})),
    language("a rope_theta of letters", "rope_theta = 'x' must be a number", changed(rope_theta="x")),
    language("a rope_theta of letters inside", "rope_parameters.rope_theta = 'x' must be a number above 0",
             changed(rope_parameters=PLAIN | {"rope_theta": "x"})),
    language("end tokens that are an object", "eos_token_id = {} must be a token", changed(eos_token_id={})),
    language("half an end token", "eos_token_id = [1, 2.5] must be a token", changed(eos_token_id=[1, 2.5])),
    language("end tokens of a generation that are words", "generation_config.json: eos_token_id = '</s>' must be",
             but("generation_config.json", '{"eos_token_id": "</s>"}')),
    language("half a size", "hidden_size = 2.5 must be a whole number", changed(hidden_size=2.5)),
    language("a list for a size", "vocab_size = [16] must be a whole number", changed(vocab_size=[16])),
    language("true for a size", "num_attention_heads = True must be a whole number", changed(num_attention_heads=True)),
    language("1 for a switch", "attention_bias = 1 is not implemented; False is", changed(attention_bias=1)),
    language("0 for a switch", "mlp_bias = 0 is not implemented; False is", changed(mlp_bias=0)),
    language("a billion layers", "num_hidden_layers = 1000000000 is more layers", changed(num_hidden_layers=10**9)),
    language("a size beyond 32 bits", "vocab_size = 1000000000000 must be at most", changed(vocab_size=10**12)),
    language("sizes that are not the weights'", "has the shape (16, 8); by its config.json it must be (65536, 8)",
             changed(vocab_size=65536)),
    language("sizes that no model has", "model.vocabulary is 2147483647; it must be a whole number",
             changed(vocab_size=2**31 - 1)),
    language("a setting with a name of lines", "is not implemented; this setting is unknown here",
             changed(**{"a\nb" * 5000: "c\nd" * 5000})),
    language("a class with a name of lines", "architectures is 'a\\nb", changed(architectures=["a\nb" * 5000])),
    denoiser("a billion layers of a denoiser", "num_layers = 1000000000 is more layers", num_layers=10**9),
    denoiser("a denoiser's epsilon of letters", "norm_eps = '1e-5' must be a number", norm_eps="1e-5"),
    denoiser("a denoiser without its tensors", "lacks the tensor"),
    denoiser("a UNet of too many levels", "is more layers than the weights have tensors for",
             _class_name="UNet2DModel", block_out_channels=[32] * 100_000),
]  # fmt: skip
FILES = [
    language("nested JSON", "config.json is not JSON that can be read: it nests", but("config.json", NESTED)),
    language("NaN in JSON", "config.json is not JSON: NaN is no number of JSON's", but("config.json", '{"a": NaN}')),
    language("infinity in JSON", "the number '1e999' is too large", but("config.json", '{"a": 1e999}')),
    language("a number of many digits", "is too large", but("config.json", '{"a": %s}' % ("9" * 5000))),
    language("a setting twice", "it names 'a' twice", but("config.json", '{"a": 1, "a": 2}')),
    language("a byte order mark", "config.json is not JSON: Unexpected UTF-8 BOM",
             but("config.json", json.dumps(LLAMA).encode("utf-8-sig"))),
    language("JSON in UTF-16", "config.json is not JSON: 'utf-8' codec",
             but("config.json", '{"a": 1}'.encode("utf-16"))),
    language("an empty config", "config.json is not JSON: Expecting value", but("config.json", "")),
    language("a folder for a config", "config.json is missing; it belongs to", a_folder_for("config.json")),
    language("a folder for weights", "holds no safetensors", a_folder_for("model.safetensors")),
    language("a generation config that is a list", "is no JSON object", but("generation_config.json", "[]")),
    language("a folder for a generation config", "generation_config.json' cannot be read: Is a directory",
             a_folder_for("generation_config.json")),
    language("a pipe for a generation config", "generation_config.json' is a pipe or a device", pipe),
    language("empty weights", "is no whole safetensors file", cut(0)),
    language("weights cut short", "is no whole safetensors file", cut(-4)),
    language("a header cut short", "is no whole safetensors file", cut(40)),
    language("a header of 2^63 bytes", "is no whole safetensors file",
             but("model.safetensors", struct.pack("<Q", 2**63) + b"{}")),
    language("weights of integers", "has the dtype I32; it must be one of F32, F16, BF16",
             without("lm_head.weight", **{"lm_head.weight": np.zeros((16, 8), np.int32)})),
    language("a tensor that is missing", "lacks the tensor model.norm.weight", without("model.norm.weight")),
    language("a tensor with a name of lines", "holds the tensor 'a\\nb", without("", **{"a\nb": np.zeros(1)})),
    language("an index of a file above", "'../a.safetensors'; it must be a file in the folder",
             indexed("../a.safetensors")),
    language("an index of a file elsewhere", "'/etc/passwd'; it must be a file in the folder", indexed("/etc/passwd")),
    language("an index of a link to elsewhere", "'a.safetensors', a link to elsewhere", linked),
    language("an index of a pickle", "names 'a.bin', a pickle", indexed("a.bin")),
    language("an index of a name too long", "cannot be read: File name too long", indexed("a" * 5000)),
    language("an index of a file that is missing", "a.safetensors is missing", indexed("a.safetensors")),
    language("an index of one tensor in two files", "holds the tensor x, and so does",
             indexed("a.safetensors", "b.safetensors", a={"x": np.zeros(1)}, b={"x": np.zeros(1)})),
    Case("a path too long", "generate", ("--config=configs/generate.py:tiny", f"--config.path=/{'a' * 5000}"),
         "no file can have that name"),
    Case("the home of nobody", "generate", ("--config=configs/generate.py:tiny", "--config.path=~nobody_here/x"),
         "is no file and no folder"),
]  # fmt: skip
PLANS = [
    plan("a plan of half a token", "block 0's window is 2.5; it must be a whole number", block(window=2.5)),
    plan("a plan of no tokens", "block 0's window is 0; it must be a whole number", block(window=0)),
    plan("a plan of true tokens", "block 0's window is True", block(window=True)),
    plan("a plan within infinity", "Infinity is no number of JSON's", block(atol=float("inf"))),
    plan("a plan within less than nothing", "block 0's atol is -1.0; it must be a finite number", block(atol=-1.0)),
    plan("a plan within letters", "block 0's atol is 'x'", block(atol="x")),
    plan("a plan from nowhere", "block 0's start is 'ones'; it must be one of noise, zeros", block(start="ones")),
    plan("a plan of a list for a refinement", "block 0's refine is ['jacobi']; it must", block(refine=["jacobi"])),
    plan("a plan without a tolerance", "it must set atol, refine, start, window", block(atol=None)),
    plan("a plan of more than there is", "'colour'; it must set", block(colour="red")),
    plan("a plan of no blocks", "it must be an object of blocks", '{"blocks": []}'),
    plan("a plan of numbers", "block 0 is 3; it must be an object of settings", '{"blocks": [3]}'),
    plan("a plan that nests", "it nests too deeply", NESTED),
]  # fmt: skip
CASES = (*SETTINGS, *FILES, *PLANS)
