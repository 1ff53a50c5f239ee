"""What a language model is trained on, and by what loss."""

from flax import nnx
from jaxtyping import Array

from experiments._frame.workload import Workload, identified, make_workload, sizes
from experiments.text.config import Language
from jaxpar.models import Transformer, build_transformer, next_token_loss
from jaxpar.training import load_text


def workload(config: Language) -> Workload:
    """What is trained; raises InputError for whatever in the configuration cannot be."""
    train, heldout = load_text(config.text, config.model.length)

    def make_model(rngs: nnx.Rngs) -> Transformer:
        return build_transformer(config.model, rngs, config.compute)

    def loss(model: Transformer, batch: dict[str, Array], key: Array) -> Array:
        return next_token_loss(model, batch["tokens"])

    source = f"{len(train.content)} bytes of {config.text.path or 'the standard library'}, sum {train.checksum:08x}"
    batch = config.text.batch
    identity = identified(config, batch, model=sizes(config.model), text=source)
    summary = f"{len(train.content):,} bytes to train on, {len(heldout.content):,} held out"
    return make_workload(
        config, make_model, loss, train, heldout, batch=batch, identity=identity, model="transformer", data=summary
    )
