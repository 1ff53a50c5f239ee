"""A language-model experiment, from its configuration to what is trained."""

from dataclasses import asdict

from flax import nnx
from jaxtyping import Array

from experiments.config import Language
from experiments.workload import Workload, make_workload
from jaxpar.models import build_transformer, next_token_loss
from jaxpar.models.keys import Keys
from jaxpar.training import load_text


def language_workload(config: Language) -> Workload:
    """What is trained; raises InputError for whatever in the configuration cannot be."""

    def make_model(rngs: nnx.Rngs) -> nnx.Module:
        return build_transformer(config.model, rngs, config.compute)

    graph, _ = nnx.split(nnx.eval_shape(lambda: make_model(Keys(0))), nnx.Param)
    train, heldout = load_text(config.text, config.model.length)

    def loss(params: nnx.State, batch: dict[str, Array], key: Array) -> Array:
        return next_token_loss(nnx.merge(graph, params), batch["tokens"])

    identity = {
        "experiment": config.name,
        "model": ", ".join(f"{name} {value}" for name, value in asdict(config.model).items()),
        "text": f"{len(train.content)} bytes of {config.text.path or 'the standard library'}, sum {train.checksum:08x}",
        "order": f"batches of {config.text.batch} by seed {config.seed}",
    }
    summary = f"{len(train.content):,} bytes to train on, {len(heldout.content):,} held out"
    return make_workload(config, make_model, loss, train, heldout, config.text.batch, identity, "transformer", summary)
