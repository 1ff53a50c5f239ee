"""Loading a published checkpoint: what is read, where it goes, and what is refused, in a word that helps."""

import json
import sys
from functools import partial
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from jaxpar import InputError
from jaxpar.models import Compute
from jaxpar.pretrained import files, load
from jaxpar.pretrained.families import FAMILIES
from jaxpar.pretrained.files import Source
from jaxpar.pretrained.load import abstract_module
from jaxpar.pretrained.settings import Settings
from jaxpar.pretrained.spellings import by_diffusers
from jaxpar.sharding import MeshConfig, make_mesh
from tests.stages import slowly

WEIGHTS = "diffusion_pytorch_model.safetensors"
INDEX = "diffusion_pytorch_model.safetensors.index.json"
DECODER = {
    "_class_name": "AutoencoderKL", "_diffusers_version": "0.34.0", "block_out_channels": [8], "norm_num_groups": 4,
    "up_block_types": ["UpDecoderBlock2D"], "scaling_factor": 0.5, "force_upcast": True, "latents_mean": None,
}  # fmt: skip
DIT = {
    "_class_name": "DiTTransformer2DModel", "num_attention_heads": 2, "attention_head_dim": 4, "num_layers": 1,
    "out_channels": 8, "num_embeds_ada_norm": 10,
}  # fmt: skip
UNET = {
    "_class_name": "UNet2DModel", "block_out_channels": [8, 16], "norm_num_groups": 4, "attention_head_dim": None,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"], "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 1, "num_class_embeds": 10,
}  # fmt: skip
TEXT = {
    "_class_name": "UNet2DConditionModel", "block_out_channels": [8, 16], "norm_num_groups": 4, "layers_per_block": 1,
    "attention_head_dim": 2, "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"], "cross_attention_dim": 12,
}  # fmt: skip
CONV = "decoder.conv_in.weight"
QUERY = "decoder.mid_block.attentions.0.to_q.weight"


def write_config(folder, config):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))


def tensors_of(folder, config):
    """Random tensors as a checkpoint of this configuration has them."""
    write_config(folder, config)
    state = nnx.split(abstract_module(Source(folder / "config.json", ()))[1])[1]
    random = np.random.default_rng(0)
    back = {2: (1, 0), 4: (3, 2, 0, 1)}
    found = {}
    for path, variable in nnx.to_flat_state(state):
        shape = [variable.shape[axis] for axis in back[variable.ndim]] if path[-1] == "kernel" else variable.shape
        found[by_diffusers(path, variable.shape, ()).name] = random.normal(size=shape).astype(np.float32)
    return found


@pytest.fixture(scope="module")
def tensors(tmp_path_factory):
    return tensors_of(tmp_path_factory.mktemp("any"), DECODER)


@pytest.fixture
def folder(tmp_path, tensors):
    write_config(tmp_path, DECODER)
    save_file(tensors, tmp_path / WEIGHTS)
    return tmp_path


def assert_holds(module, tensors, atol=0.0):
    np.testing.assert_allclose(module.decoder.conv_in.kernel[...], tensors[CONV].transpose(2, 3, 1, 0), atol=atol)
    query = module.decoder.mid_block.attentions[0].attention.to_q
    np.testing.assert_allclose(query.kernel[...], tensors[QUERY].T, atol=atol)
    scale = tensors["decoder.conv_norm_out.weight"]
    np.testing.assert_allclose(module.decoder.conv_norm_out.scale[...], scale, atol=atol)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(nnx.state(module)))
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module))) == sum(map(np.size, tensors.values()))


def test_a_folder_a_file_and_a_part(folder, tensors):
    assert_holds(load(folder), tensors)
    assert_holds(load(str(folder / WEIGHTS)), tensors)
    assert_holds(load(folder.parent, part=folder.name), tensors)
    (folder / WEIGHTS).rename(folder / "other.safetensors")
    assert_holds(load(folder), tensors)


def test_shards(folder, tensors):
    (folder / WEIGHTS).unlink()
    names = sorted(tensors)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, inside in shards.items():
        save_file({name: tensors[name] for name in inside}, folder / file)
    places = {name: file for file, inside in shards.items() for name in inside}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    assert_holds(load(folder), tensors)
    assert_holds(load(folder / INDEX), tensors)
    save_file({name: tensors[name] for name in [*names[::2], names[1]]}, folder / "a.safetensors")
    with pytest.raises(InputError, match=rf"b.safetensors holds the tensor {names[1]}, and so does .*a.safetensors"):
        load(folder)
    (folder / "b.safetensors").unlink()
    with pytest.raises(InputError, match=r"b.safetensors is missing; it belongs to"):
        load(folder)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16])
def test_narrow_files_become_float32(folder, tensors, dtype):
    narrow = {name: value.astype(dtype) for name, value in tensors.items()}
    save_file(narrow, folder / WEIGHTS)
    assert_holds(load(folder), {name: value.astype(np.float32) for name, value in narrow.items()})


def test_names_of_the_first_files(folder, tensors):
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = dict(tensors)
    for now, then in old.items():
        for kind in ("weight", "bias"):
            prefix = "decoder.mid_block.attentions.0."
            renamed[f"{prefix}{then}.{kind}"] = renamed.pop(f"{prefix}{now}.{kind}")
    save_file(renamed, folder / WEIGHTS)
    assert_holds(load(folder), tensors)


def test_what_an_autoencoder_encodes_with_is_passed_over(folder, tensors):
    spare = np.zeros((2, 2), np.float32)
    save_file(tensors | {"encoder.conv_in.weight": spare, "quant_conv.weight": spare}, folder / WEIGHTS)
    assert_holds(load(folder), tensors)


class Counted:
    """A safetensors file that notes how many elements of which tensor are read at once."""

    def __init__(self, reads, *args, **settings):
        self.reads, self.file = reads, safe_open(*args, **settings)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return self.file.__exit__(*error)

    def keys(self):
        return self.file.keys()

    def get_slice(self, name):
        return CountedSlice(self.reads, name, self.file.get_slice(name))


class CountedSlice:
    def __init__(self, reads, name, inside):
        self.reads, self.name, self.inside = reads, name, inside
        self.get_shape, self.get_dtype = inside.get_shape, inside.get_dtype

    def __getitem__(self, part):
        found = self.inside[part]
        self.reads.append((self.name, found.size))
        return found


def test_a_mesh_reads_what_each_device_needs(folder, tensors, monkeypatch):
    reads = []
    monkeypatch.setattr(files, "safe_open", partial(Counted, reads))
    module = load(folder, mesh=make_mesh(MeshConfig(fsdp=4, tensor=2)))
    assert_holds(module, tensors)
    query = module.decoder.mid_block.attentions[0].attention.to_q.kernel[...]
    assert query.sharding.shard_shape(query.shape) == (2, 4)
    resnet = module.decoder.mid_block.resnets[0]
    for conv, shape in ((resnet.conv1, (3, 3, 2, 4)), (resnet.conv2, (3, 3, 4, 2))):
        kernel = conv.kernel[...]
        assert kernel.sharding.shard_shape(kernel.shape) == shape
    for name in (QUERY, "decoder.mid_block.resnets.0.conv1.weight"):
        assert [size for read, size in reads if read == name] == [tensors[name].size // 8] * 8


def test_a_cut_that_does_not_divide_is_refused(folder):
    with pytest.raises(InputError, match=r"axis 0 of decoder.conv_in.bias has 8 elements, which 5 devices"):
        load(folder, mesh=make_mesh(MeshConfig(fsdp=5)))


def without(name):
    return lambda folder, tensors: save_file({n: t for n, t in tensors.items() if n != name}, folder / WEIGHTS)


def instead(name, value):
    return lambda folder, tensors: save_file(tensors | {name: value}, folder / WEIGHTS)


def cut(count):
    def write(folder, tensors):
        (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:count])

    return write


def only(name):
    return lambda folder, tensors: (folder / WEIGHTS).rename(folder / name)


def config(**changes):
    return lambda folder, tensors: write_config(folder, DECODER | changes)


def text(name, content):
    return lambda folder, tensors: (folder / name).write_text(content)


def two_files(folder, tensors):
    for name in ("a", "b"):
        save_file(tensors, folder / f"{name}.safetensors")
    (folder / WEIGHTS).unlink()


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (without(CONV), rf"{WEIGHTS} lacks the tensor {CONV} of the model"),
        (lambda folder, found: save_file({CONV: found[CONV]}, folder / WEIGHTS), r"lacks the tensor .* and \d+ more"),
        (instead("extra", np.zeros(2)), rf"{WEIGHTS} holds the tensor extra, which the model in its config.json"),
        (instead(CONV, np.zeros((8, 3, 3, 3), np.float32)),
         r"conv_in.weight has the shape \(8, 3, 3, 3\); by its config.json it must be \(8, 4, 3, 3\)"),
        (instead(CONV, np.zeros((8, 4, 3, 3))), r"conv_in.weight has the dtype F64; it must be one of F32, F16, BF16"),
        (instead(CONV, np.zeros((8, 4, 3, 3), np.int8)), r"conv_in.weight has the dtype I8"),
        (cut(-4), rf"{WEIGHTS} is no whole safetensors file: .+"),
        (cut(0), rf"{WEIGHTS} is no whole safetensors file"),
        (text(WEIGHTS, "a" * 100), rf"{WEIGHTS} is no whole safetensors file"),
        (only("diffusion_pytorch_model.bin"),
         r"no safetensors, only diffusion_pytorch_model.bin: only safetensors are read, as unpickling a file runs"),
        (only("nothing"), r"holds no safetensors: only safetensors are read"),
        (two_files, rf"has neither {WEIGHTS} nor model.safetensors, but a.safetensors, b.safetensors; name the file"),
        (lambda folder, tensors: (folder / "config.json").unlink(), r"config.json is missing; it belongs to"),
        (text("config.json", "{"), r"config.json is not JSON"),
        (text("config.json", "[]"), r"config.json is no JSON object"),
        (lambda folder, tensors: (text(INDEX, "{}")(folder, tensors), only("x.safetensors")(folder, tensors)),
         r"has no weight_map"),
        (config(_class_name="Flux"), r"_class_name is 'Flux'; it must be one of DiTTransformer2DModel, "),
        (config(act_fn="mish"), r"config.json: act_fn = 'mish' is not implemented; 'silu' is"),
        (config(latents_mean=[0.5]), r"latents_mean = \[0.5\] is not implemented; this setting is unknown here"),
        (config(norm_num_groups=3), r"8 channels cannot be split into 3 groups of one size \(the model of"),
        (config(norm_num_groups=0), r"norm_num_groups = 0 must be at least 1"),
        (config(layers_per_block="two"), r"layers_per_block = 'two' must be a whole number"),
        (config(block_out_channels=[8, 0]), r"block_out_channels = \[8, 0\] must be a list of whole numbers"),
        (config(up_block_types=["AttnUpDecoderBlock2D"]), r"up_block_types = .* must be a list of 1, each one of Up"),
    ],
)  # fmt: skip
def test_a_checkpoint_that_is_not_right(folder, tensors, break_it, message):
    break_it(folder, tensors)
    with pytest.raises(InputError, match=message) as refused:
        load(folder)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (DIT | {"norm_type": "ada_norm_single"}, "norm_type = 'ada_norm_single' is not implemented; 'ada_norm_zero'"),
        ({"_class_name": "Transformer2DModel"}, "norm_type = 'layer_norm' is not implemented"),
        (DIT | {"activation_fn": "geglu"}, "activation_fn = 'geglu'"),
        (DIT | {"out_channels": 6}, "out_channels = 6 must be in_channels, 4, or with a variance twice that"),
        (DIT | {"attention_bias": 1}, "attention_bias = 1 must be true or false"),
        (UNET | {"mid_block_type": None}, "mid_block_type = None is not implemented; 'UNetMidBlock2D' is"),
        (UNET | {"attention_head_dim": 3}, r"attention_head_dim = 3 must divide each of block_out_channels, \(8, 16\)"),
        (UNET | {"down_block_types": ["DownBlock2D"]}, "down_block_types = .* must be a list of 2, each one of Down"),
        (UNET | {"downsample_padding": 2}, "downsample_padding = 2 is not implemented; 1 or 0 is"),
        (UNET | {"num_class_embeds": 0}, "num_class_embeds = 0 must be at least 1, or null"),
        (UNET | {"norm_eps": -1}, "norm_eps = -1.0 must be above 0"),
        (DIT | {"attention_head_dim": 1}, "a width of 2 cannot hold sines and cosines"),
        (UNET | {"out_channels": 6}, "out_channels = 6 must be in_channels, 3"),
        (UNET | {"resnet_time_scale_shift": "scale_shift"}, "resnet_time_scale_shift = 'scale_shift'"),
        (UNET | {"time_embedding_type": "fourier"}, "time_embedding_type = 'fourier'"),
        (TEXT | {"addition_embed_type": "text_time"}, "addition_embed_type = 'text_time' is not implemented"),
        (TEXT | {"attention_head_dim": [2]}, "attention_head_dim = .* must be a whole number from 1 on, or a list"),
        (TEXT | {"attention_head_dim": 3}, r"a width of 8 cannot be split into 3 heads \(the model of"),
        (TEXT | {"transformer_layers_per_block": [1, 2]}, "transformer_layers_per_block"),
    ],
)  # fmt: skip
def test_a_setting_that_is_not_implemented(tmp_path, settings, message):
    write_config(tmp_path, settings)
    with pytest.raises(InputError, match=message):
        abstract_module(Source(tmp_path / "config.json", ()))


def products(jaxpr):
    """The dtypes that every matrix product and convolution takes, those of inner programs among them."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            yield {var.aval.dtype.name for var in equation.invars}
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            if hasattr(inner, "eqns"):
                yield from products(getattr(inner, "jaxpr", inner))


@pytest.mark.parametrize("settings", [DIT, *slowly([UNET]), TEXT], ids=["dit", "unet", "text"])
def test_denoisers_are_called_as_jaxpars_own(tmp_path, settings):
    """An image without a batch, under vmap; in bfloat16 every product is one, and the answer is much the same."""
    save_file({name: value / 8 for name, value in tensors_of(tmp_path, settings).items()}, tmp_path / WEIGHTS)
    image = jax.random.normal(jax.random.key(0), (3, 8, 8, 3 if settings is UNET else 4))
    label = jax.random.normal(jax.random.key(1), (3, 5, 12)) if settings is TEXT else jnp.array([0, 4, 9])
    time = jnp.array([0.001, 0.5, 1.0])

    def run(dtype):
        graph, state = nnx.split(load(tmp_path, compute=Compute(dtype)))
        denoise = jax.vmap(lambda *inputs: nnx.merge(graph, state)(*inputs))
        taken = list(products(jax.make_jaxpr(denoise)(image, time, label)))
        assert len(taken) > 10
        assert all(dtypes == {dtype} for dtypes in taken)
        return jax.jit(denoise)(image, time, label)

    wide = run("float32")
    with jax.numpy_dtype_promotion("standard"):  # jax.nn.dot_product_attention mixes them on purpose
        narrow = run("bfloat16")
    assert wide.shape == narrow.shape == image.shape
    assert wide.dtype == narrow.dtype == jnp.float32
    assert 0 < jnp.abs(wide - narrow).max() < 0.1 * jnp.abs(wide).max()
    assert (jnp.abs(wide[0] - wide[1]) > 0).any()


def test_calls_that_cannot_be(tmp_path, folder):
    with pytest.raises(InputError, match=r"compute.remat is 'full', and the autoencoder redoes nothing"):
        load(folder, compute=Compute(remat="full"))
    with pytest.raises(InputError, match=r"unknown compute.dtype 'int8'"):
        load(folder, compute=Compute(dtype="int8"))
    save_file(tensors_of(tmp_path / "unet", UNET), tmp_path / "unet" / WEIGHTS)
    unet = load(tmp_path / "unet")
    with pytest.raises(InputError, match=r"this UNet needs a label: a class"):
        unet(jnp.zeros((8, 8, 3)), jnp.ones(()))
    with pytest.raises(InputError, match=r"an image of 8x9 cannot be halved 1 times"):
        unet(jnp.zeros((8, 9, 3)), jnp.ones(()), jnp.array(1))


def test_names_that_lead_nowhere(folder, tmp_path):
    with pytest.raises(InputError, match=r'nowhere is no file and no folder; a name on the hub is "owner/model"'):
        load(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"model.ckpt is a pickle: only safetensors are read"):
        load("some/model.ckpt")
    with pytest.raises(InputError, match=r"some/model.safetensors is no file and no folder"):
        load("some/model.safetensors")
    with pytest.raises(InputError, match=r"is a file, and has no part 'vae'"):
        load(folder / WEIGHTS, part="vae")
    write_config(tmp_path / "parts" / "unet", TEXT)
    write_config(tmp_path / "parts" / "vae", DECODER)
    for part in (None, "transformer"):
        with pytest.raises(InputError, match=r"parts holds the parts unet, vae; name one, as in part='unet'"):
            load(tmp_path / "parts", part=part)


def test_the_hub(folder, tensors, monkeypatch):
    asked = {}

    def snapshot_download(name, allow_patterns):
        asked[name] = allow_patterns
        if name == "some/absent":
            raise OSError("Got: ConnectError\n\nno network")
        return str(folder.parent)

    hub, errors = ModuleType("huggingface_hub"), ModuleType("huggingface_hub.errors")
    hub.snapshot_download, errors.HfHubHTTPError = snapshot_download, OSError
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)
    assert_holds(load("some/model", part=folder.name), tensors)
    assert all(pattern.endswith((".json", ".safetensors", "/chat_template.jinja")) for pattern in asked["some/model"])
    assert f"{folder.name}/{WEIGHTS}" in asked["some/model"]
    with pytest.raises(InputError, match=r"some/absent is no folder here, and the hub gave nothing: .* no network"):
        load("some/absent")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"huggingface_hub, which is missing: pip install 'jaxpar\[hub\]'"):
        load("some/model")


def test_files_are_as_they_were(folder, tensors):
    """What the tests above write is what a reader of safetensors finds."""
    found = load_file(folder / WEIGHTS)
    assert found.keys() == tensors.keys()
    np.testing.assert_array_equal(found[CONV], tensors[CONV])


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("LlamaForCausalLM", (32_000, 2048, 4096, 11_008, 32, 32, 32, 128)),
        ("MistralForCausalLM", (32_000, 4096, 4096, 14_336, 32, 8, 32, 128)),
        ("Qwen2ForCausalLM", (151_936, 32_768, 4096, 22_016, 32, 32, 32, 128)),
        ("Qwen3ForCausalLM", (151_936, 32_768, 4096, 22_016, 32, 32, 32, 128)),
    ],
)
def test_sizes_that_a_file_leaves_out_are_those_of_its_class_in_transformers(kind, sizes, tmp_path):
    config = FAMILIES[kind].read(Settings({}, tmp_path / "config.json"))
    config = getattr(config, "sizes", config)
    names = ("vocabulary", "length", "width", "hidden", "heads", "kv_heads", "blocks", "size")
    assert tuple(getattr(config, name) for name in names) == sizes
