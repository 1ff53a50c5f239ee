"""What is made of logits, against transformers' own processors."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxpar.decoding import Law

torch = pytest.importorskip("torch")
logits_process = pytest.importorskip("transformers.generation.logits_process")

SETTINGS = [
    {"temperature": 0.7}, {"top_k": 5}, {"top_k": 100}, {"top_p": 0.8}, {"top_p": 1e-6}, {"min_p": 0.2},
    {"typical": 0.6}, {"typical": 1e-6}, {"eta": 0.02}, {"repetition": 1.4}, {"repetition": 0.7},
    {"repetition": 1.2, "temperature": 0.6, "top_k": 12, "top_p": 0.9, "min_p": 0.05, "typical": 0.95, "eta": 0.003},
]  # fmt: skip
PROCESSORS = {
    "repetition": logits_process.RepetitionPenaltyLogitsProcessor,
    "temperature": logits_process.TemperatureLogitsWarper,
    "top_k": logits_process.TopKLogitsWarper,
    "top_p": logits_process.TopPLogitsWarper,
    "min_p": logits_process.MinPLogitsWarper,
    "typical": logits_process.TypicalLogitsWarper,
    "eta": logits_process.EtaLogitsWarper,
}


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_law(settings):
    random = np.random.default_rng(0)
    logits = (2.5 * random.normal(size=(50, 20))).astype(np.float32)
    tokens = random.integers(0, 20, (50, 6))
    wanted = torch.from_numpy(logits.copy())
    for name in PROCESSORS:
        if name in settings:
            wanted = PROCESSORS[name](settings[name])(torch.from_numpy(tokens), wanted)
    wanted = torch.log_softmax(wanted, dim=-1).numpy()
    seen = np.zeros((50, 20), bool)
    np.put_along_axis(seen, tokens, True, axis=1)
    found = np.asarray(Law(**settings).log_probabilities(jnp.asarray(logits), jnp.asarray(seen)))
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(wanted))
    kept = np.isfinite(wanted)
    np.testing.assert_allclose(found[kept], wanted[kept], atol=2e-5)
    assert kept.any(axis=1).all()
