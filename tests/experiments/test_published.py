"""Drawing with published denoisers: random weights of a published shape, a checkpoint, a mesh, and what is refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from matplotlib.figure import Figure
from PIL import Image
from safetensors.numpy import save_file

from configs.dit_xl import get_config
from experiments._frame.devices import on_mesh
from experiments.published import sample as program
from experiments.published import windows
from experiments.published.denoisers import published_denoiser
from experiments.published.window_tables import MISSING, tables
from jaxpar import InputError, Sequential, Sliding, Solver, Within
from jaxpar.core.measure.flops import count_flops
from jaxpar.diffusion import Denoiser, VariancePreserving, ddim, evenly, sample
from jaxpar.models import PublishedDiT, UNet
from jaxpar.plots import windows as picture
from jaxpar.pretrained import load, without_weights
from jaxpar.settings import check_settings
from tests import programs
from tests.pretrained.test_load import DECODER, DIT, TEXT, UNET, tensors_of


def run(workdir, *words, start=programs.run):
    return start("sample", "--config=configs/dit_xl.py:tiny", f"--workdir={workdir}", *words)


def checkpoint(folder, settings):
    """A folder with random weights as they are published, small enough that a chain contracts."""
    save_file({name: value / 8 for name, value in tensors_of(folder, settings).items()}, folder / "model.safetensors")
    return str(folder)


def tiny(**weights):
    config = get_config("tiny")
    config.compute.dtype = "float32"
    for name, value in weights.items():
        setattr(config.weights, name, value)
    return config


@pytest.fixture(autouse=True)
def mixed_promotion():
    with jax.numpy_dtype_promotion("standard"):  # jax.nn.dot_product_attention mixes dtypes on purpose
        yield


@pytest.mark.slow
def test_random_weights_are_timed_and_drawn(tmp_path):
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith(
        f"wrote published.json, published.md, published.png and samples.png to {tmp_path}"
    )
    report = json.loads((tmp_path / "published.json").read_text())
    assert [row["window"] for row in report["evaluations"]] == [1, 4, 8]
    assert report["evaluations"][0]["bound"] == 1
    assert {"jax", "flax"} <= set(report["versions"])
    one = report["flops_per_evaluation"]
    for row in report["evaluations"]:
        rate = one * row["window"] / row["seconds"]
        assert row["flops_per_second_and_device"] == pytest.approx(rate)
        assert row["utilisation"] is None
    assert [chain["steps"] for chain in report["chains"]] == [12, 24]
    for chain in report["chains"]:
        assert chain["sequential"]["evaluations"] == chain["steps"]
        for row in chain["windows"]:
            assert row["status"] == "CONVERGED"
            assert 0 < row["largest_difference"] < 0.1
            assert row["rounds_max"] < chain["steps"]
            assert row["evaluations_median"] == row["rounds_median"] * row["window"]
            rate = one * row["evaluations_median"] / row["seconds_parallel_median"]
            assert row["flops_per_second_and_device"] == pytest.approx(rate)
    text = (tmp_path / "published.md").read_text()
    assert "weights are random" in text
    assert text.count("| CONVERGED |") == 6
    for name in ("samples.png", "published.png"):
        assert np.asarray(Image.open(tmp_path / name).convert("L")).std() > 10


@pytest.mark.parametrize(
    ("variant", "module", "count"),
    # of diffusers' own classes; DiT's paper counts 675 million, one copy of each block's embedding
    [("", PublishedDiT, 749_826_464), ("ddpm_cifar10", UNet, 35_746_307), ("sd15", UNet, 859_520_964)],
)
def test_variants_have_the_published_sizes(variant, module, count):
    config = get_config(variant)
    sizes = config.random.dit if module is PublishedDiT else config.random.unet
    graph, state = nnx.split(without_weights(module, sizes, config.compute))
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) == count
    if module is PublishedDiT:
        flops = count_flops(
            lambda weights, *given: nnx.merge(graph, weights)(*given),
            state, jnp.zeros((32, 32, 4)), jnp.ones(()), jnp.int32(0),
        )  # fmt: skip
        assert flops == pytest.approx(2 * 118.64e9, rel=1e-3)  # arXiv 2212.09748, table 4: multiplications alone


def test_random_weights_leave_nothing_out():
    """Image, time and label all count, and kernels in bfloat16 say just what kernels cast at each evaluation say."""
    config = get_config("tiny")
    denoiser = published_denoiser(config)
    denoise = denoiser.guided(denoiser.params, 1.0)
    image, time, label = jax.random.normal(jax.random.key(3), (8, 8, 4)), jnp.float32(0.5), jnp.int32(10)
    said = denoise(image, time, label)
    for other in ((image[::-1], time, label), (image, time + 0.3, label), (image, time, label - 1)):
        assert jnp.abs(denoise(*other) - said).max() > 0.05
    assert 0.3 < float(said.std()) < 3
    kernels = [leaf for leaf in jax.tree.leaves(denoiser.params) if leaf.ndim > 1]
    assert {leaf.dtype.name for leaf in kernels} == {"bfloat16", "float32"}  # the tables of classes are float32
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), denoiser.params)
    np.testing.assert_array_equal(denoiser.guided(wide, 1.0)(image, time, label), said)


def test_a_checkpoint_draws_what_the_library_draws(tmp_path, monkeypatch):
    """The program's images, guided and decoded, against `sample` called with the loaded module itself."""
    folder, decoder = checkpoint(tmp_path / "all" / "dit", DIT), checkpoint(tmp_path / "decoder", DECODER)
    config = tiny(path=str(tmp_path / "all"), part="dit", decoder=decoder)
    config.labels, config.sampler.guidance, config.contest.images = (3, -1), 2.0, 2
    config.sampler.steps, config.contest.steps, config.contest.windows = 12, (), ()
    shown = {}

    def drawn(rows, captions):
        shown.update(rows, captions=captions)
        return Figure()

    monkeypatch.setattr(program, "image_rows", drawn)
    (tmp_path / "run").mkdir()
    program.main(config, tmp_path / "run")
    assert shown["captions"] == ["3", "any"]
    report = json.loads((tmp_path / "run" / "published.json").read_text())
    (row,) = report["chains"][0]["windows"]
    assert (row["window"], row["status"], report["weights"]) == (8, "CONVERGED", config.weights.path)
    assert "random" not in (tmp_path / "run" / "published.md").read_text()

    model = load(folder)
    sampler = ddim(evenly(VariancePreserving(1000, "linear"), 12))

    def denoise(image, time, label):
        free = model(image, time, jnp.int32(10))
        return free + 2 * (model(image, time, label) - free)

    for number, label in enumerate((3, 10)):
        key = jax.random.split(jax.random.key(config.sample_seed), 2)[number]
        latents = sample(
            Denoiser(denoise, "epsilon"), sampler, key, jnp.int32(label), (8, 8, 4), solver=Sequential()
        ).final
        image = load(decoder)(latents)
        scale = float(jnp.abs(image).max())
        np.testing.assert_allclose(shown["sequential"][number], image, atol=1e-3 * scale)
        np.testing.assert_allclose(shown["window 8"][number], image, atol=0.05 * scale)


@pytest.mark.slow
def test_a_text_guides(tmp_path):
    texts = np.random.default_rng(0).normal(size=(3, 5, 12)).astype(np.float32)
    np.save(tmp_path / "texts.npy", texts)
    config = tiny(path=checkpoint(tmp_path / "unet", TEXT), texts=str(tmp_path / "texts.npy"))
    config.sampler.guidance = 3.0
    denoiser = published_denoiser(config)
    np.testing.assert_array_equal(denoiser.labels, texts[1:])
    model, image, time = nnx.jit(load(tmp_path / "unet")), jnp.ones((8, 8, 4)), jnp.float32(0.5)
    free, told = model(image, time, jnp.asarray(texts[0])), model(image, time, jnp.asarray(texts[2]))
    said = jax.jit(denoiser.guided(denoiser.params, 3.0))(image, time, denoiser.labels[1])
    np.testing.assert_allclose(said, free + 3 * (told - free), atol=1e-4)


def test_a_window_that_does_not_fit_is_a_line_in_the_tables(tmp_path):
    config = tiny()
    config.sampler.steps, config.contest.steps, config.contest.images = 12, (), 2
    denoiser = published_denoiser(config)

    def full(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    sampler = ddim(evenly(VariancePreserving(), 12))
    draws = {
        window: jax.jit(denoiser.drawing(sampler, solver, 1.0))
        for window, solver in {0: Sequential(), 4: Solver(accept=Within(1e-2), window=Sliding(4))}.items()
    }
    evaluations = {1: lambda *given: given[1], 4: lambda *given: given[1], 8: full}
    programs = windows.Programs({(12, 0): draws[0], (12, 4): draws[4], (12, 8): None, (12, 16): full}, evaluations)
    report = {
        "experiment": "here", "weights": "random", "weights_count": 1, "dtype": "float32", "devices_used": 1,
        "device": "none", "host": "none", "versions": {}, "flops_per_evaluation": 10**9,
        "peak_flops_per_second_and_device": 1e12,
    }  # fmt: skip
    timed = windows.time_evaluations(config, programs, denoiser)
    report["evaluations"] = [row | program.used(report, row["seconds"], row["window"]) for row in timed]
    timing, rows = windows.race(config, programs, denoiser, 12)
    assert [row["fits"] for row in rows] == [True, False, False]
    report["chains"] = [program.chain(report, timing, 12, rows)]
    lines = tables(report).splitlines()
    missing = [line for line in lines if MISSING in line]
    assert [line.split(" | ")[:2] for line in missing] == [["| 8", MISSING], ["| 12", "8"], ["| 12", "16"]]
    assert len({line.count("|") for line in lines if line.startswith("| 12 |")}) == 1
    assert "%" in lines[-3]
    picture(report, "two that do not fit").savefig(tmp_path / "picture.png")
    assert Image.open(tmp_path / "picture.png").size[0] > 500
    programs.chains[12, 0] = None
    assert windows.race(config, programs, denoiser, 12)[0] is None

    def broken(*_):
        raise jax.errors.JaxRuntimeError("INTERNAL: broken")

    with pytest.raises(jax.errors.JaxRuntimeError, match="broken"):
        windows.within_memory(broken)


def test_a_wrong_path_is_one_line_and_status_2(tmp_path):
    line = f'error: {tmp_path}/nowhere is no file and no folder; a name on the hub is "owner/model"\n'
    assert run(tmp_path / "run", f"--config.weights.path={tmp_path}/nowhere", start=programs.refused) == line
    assert not (tmp_path / "run").exists()


WRONG = {
    "label beyond": ({"labels": (10,)}, r"labels are \(10,\); give some from -1 to 9"),
    "no labels": ({"labels": ()}, "the length of labels is 0"),
    "size 0": ({"size": 0}, "size is 0"),
    "copies": ({"mesh.data": 2}, "copies of the model by mesh.data would idle"),
    "kind": ({"random.kind": "vit"}, "unknown random.kind 'vit'; take one of dit, unet"),
    "no heads": ({"random.dit.heads": 0}, "random.dit.heads is 0; it must be a whole number"),
    "levels": ({"random.kind": "unet", "random.unet.heads": (1,)}, "levels in unlike numbers: channels 4, .*heads 1"),
    "prediction": ({"random.prediction": "noise"}, "unknown random.prediction 'noise'"),
    "dtype": ({"compute.dtype": "int8"}, "unknown compute.dtype 'int8'"),
    "sampler": ({"sampler.kind": "ddmi"}, "unknown sampler.kind 'ddmi'"),
    "length": ({"contest.steps": (2000,)}, "2000 sampling steps"),
    "window": ({"contest.windows": (0,)}, r"contest.windows\[0\] is 0"),
    "seed": ({"seed": -1}, "seed is -1"),
    "images": ({"contest.images": 0}, "contest.images is 0"),
    "no text": ({"weights.texts": "a.npy"}, "the denoiser knows no texts"),
    "texts": ({"weights.path": TEXT, "weights.texts": "a.npy"}, "no array can be read from a.npy"),
    "guidance": ({"weights.path": UNET, "sampler.guidance": 2.0, "labels": (1,)}, "has no null label"),
    "null": ({"weights.path": UNET}, r"labels are \(-1,\); give some from 0 to 9"),
    "decoder": ({"weights.path": DECODER}, "is a LatentDecoder, which does not denoise"),
    "no decoder": ({"weights.decoder": DIT}, "is a PublishedDiT; an autoencoder is needed"),
    "channels": ({"weights.decoder": DECODER | {"latent_channels": 3}}, "latents of 3 channels, the denoiser makes 4"),
}


def started(config):
    """As the launcher and then the program begin."""
    check_settings(config)
    return program.prepare(config)


@pytest.mark.parametrize("name", WRONG)
def test_what_is_refused(name, tmp_path):
    changes, message = WRONG[name]
    config = tiny()
    for setting, value in changes.items():
        *groups, last = setting.split(".")
        group = config
        for inner in groups:
            group = getattr(group, inner)
        setattr(group, last, checkpoint(tmp_path, value) if isinstance(value, dict) else value)
    with pytest.raises(InputError, match=message) as refused:
        started(config)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "mesh",
    [{"time": 4, "tensor": 2}, {"time": 2, "fsdp": 2, "tensor": 2}],
    ids=str,
)
@pytest.mark.slow
def test_a_mesh_draws_the_same_images(mesh):
    config = tiny()
    config.sampler.steps, config.contest.steps, config.contest.windows = 12, (), (4,)
    config.solver.size, config.solver.atol, config.contest.images = 4, 1e-5, 1

    def drawn():
        planned, denoiser, _ = program.prepare(config)
        with on_mesh(denoiser.partition.mesh):
            programs = windows.compile_programs(config, planned, denoiser)
            timing, _ = windows.race(config, programs, denoiser, 12)
        return denoiser, {name: np.asarray(found[0].final) for name, found in timing.results.items()}

    _, alone = drawn()
    for axis, size in mesh.items():
        setattr(config.mesh, axis, size)
    denoiser, spread = drawn()
    kernel = nnx.merge(denoiser.graph, denoiser.params).transformer_blocks[0].ff.up.kernel[...]
    assert kernel.sharding.shard_shape(kernel.shape) == (32 // mesh.get("fsdp", 1), 128 // mesh["tensor"])
    images, _, _ = windows._window(denoiser, 4)
    assert images.sharding.shard_shape(images.shape)[0] == 4 // mesh["time"]
    for name in ("sequential", "window 4"):
        np.testing.assert_allclose(spread[name], alone["sequential"], atol=1e-3)
