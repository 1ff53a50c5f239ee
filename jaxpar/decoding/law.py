"""From a model's logits to the law that a token is drawn from, and to the token that given noise draws.

With the noise of each place drawn before decoding begins, the token is a function of those before it (Gumbel-max: the
largest of log p + g has the law p), and sampled decoding a deterministic system.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int

from jaxpar.core import InputError

Logits = Float32[Array, "*batch vocabulary"]


@dataclass(frozen=True)
class Law:
    """What is made of logits, in this order; the defaults leave them as they are.

    Attributes:
      repetition: logits of tokens that were there before are divided by this where positive, multiplied where negative
        (arXiv 1909.05858, section 4.1).
      temperature: logits are divided by it; 0 takes the most likely token.
      top_k: only so many of the likeliest tokens are kept; 0 for all.
      top_p: only the likeliest that together have at least this probability (nucleus, arXiv 1904.09751).
      min_p: only those with at least this share of the likeliest one's probability (arXiv 2407.01082).
      typical: only those nearest to the entropy that together have this probability (arXiv 2202.00666).
      eta: only those above min(eta, sqrt(eta) exp(-entropy)) (arXiv 2210.15191); 0 for all.
    """

    repetition: float = 1.0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical: float = 1.0
    eta: float = 0.0

    def __post_init__(self):
        for name, right, wanted in (
            ("repetition", self.repetition > 0, "must be positive"),
            ("temperature", self.temperature >= 0, "must be 0 (the most likely token) or more"),
            ("top_k", self.top_k >= 0, "must be 0 (all tokens) or more"),
            ("top_p", 0 < self.top_p <= 1, "must lie above 0 and at most at 1"),
            ("min_p", 0 <= self.min_p <= 1, "must lie between 0 and 1"),
            ("typical", 0 < self.typical <= 1, "must lie above 0 and at most at 1"),
            ("eta", 0 <= self.eta < 1, "must lie at 0 (all tokens) or above, and below 1"),
        ):
            if not right:
                raise InputError(f"{name} is {getattr(self, name)}; it {wanted}")

    @property
    def greedy(self) -> bool:
        """Whether no noise is needed."""
        return self.temperature == 0

    def log_probabilities(self, logits: Logits, seen: Bool[Array, "*batch vocabulary"] | None = None) -> Logits:
        """Of every token; minus infinity of those that are not kept.

        Args:
          seen: tokens that were there before; needed where there is a `repetition` penalty.
        """
        if self.repetition != 1:
            if seen is None:
                raise InputError("a penalty of repetition needs to know which tokens were there before")
            logits = jnp.where(seen, jnp.where(logits < 0, logits * self.repetition, logits / self.repetition), logits)
        if self.greedy:
            best = jax.nn.one_hot(logits.argmax(axis=-1), logits.shape[-1], dtype=bool)
            return jnp.where(best, 0.0, -jnp.inf)
        logits = logits / self.temperature
        if 0 < self.top_k < logits.shape[-1]:
            logits = _without(logits, logits < jax.lax.top_k(logits, self.top_k)[0][..., -1:])
        if self.top_p < 1:
            logits = _without(logits, _outside_nucleus(logits, self.top_p))
        if self.min_p > 0:
            chances = jax.nn.softmax(logits, axis=-1)
            logits = _without(logits, chances < self.min_p * chances.max(axis=-1, keepdims=True))
        if self.typical < 1:
            logits = jnp.where(_untypical(logits, self.typical), -jnp.inf, logits)  # even the likeliest one
        if self.eta > 0:
            least = jnp.minimum(self.eta, self.eta**0.5 * jnp.exp(-_entropy(logits)))
            logits = _without(logits, jax.nn.softmax(logits, axis=-1) < least)
        return jax.nn.log_softmax(logits, axis=-1)

    def choose(
        self, logits: Logits, noise: Logits | None = None, seen: Bool[Array, "*batch vocabulary"] | None = None
    ) -> Int[Array, "*batch"]:
        """The token that Gumbel noise draws; the most likely one needs none."""
        log_p = self.log_probabilities(logits, seen)
        if self.greedy:
            return log_p.argmax(axis=-1)
        if noise is None:
            raise InputError(f"a temperature of {self.temperature} draws tokens; give noise to draw them with")
        return (log_p + noise).argmax(axis=-1)


def _without(logits: Logits, removed: Bool[Array, "*batch vocabulary"]) -> Logits:
    """The same with tokens removed, but never the likeliest one."""
    return jnp.where(removed & (logits < logits.max(axis=-1, keepdims=True)), -jnp.inf, logits)


def _outside_nucleus(logits: Logits, mass: float) -> Bool[Array, "*batch vocabulary"]:
    order = jnp.argsort(logits, axis=-1)
    below = jnp.cumsum(jnp.take_along_axis(jax.nn.softmax(logits, axis=-1), order, axis=-1), axis=-1)
    return jnp.take_along_axis(below <= 1 - mass, jnp.argsort(order, axis=-1), axis=-1)


def _untypical(logits: Logits, mass: float) -> Bool[Array, "*batch vocabulary"]:
    log_p = jax.nn.log_softmax(logits, axis=-1)
    away = jnp.abs(-log_p - _entropy(logits))
    order = jnp.argsort(away, axis=-1)
    within = jnp.cumsum(jnp.take_along_axis(jnp.exp(log_p), order, axis=-1), axis=-1)
    last = jnp.minimum((within < mass).sum(axis=-1, keepdims=True), logits.shape[-1] - 1)
    return away > jnp.take_along_axis(jnp.take_along_axis(away, order, axis=-1), last, axis=-1)


def _entropy(logits: Logits) -> Float32[Array, "*batch 1"]:
    log_p = jax.nn.log_softmax(logits, axis=-1)
    return -jnp.where(jnp.isfinite(log_p), jnp.exp(log_p) * log_p, 0).sum(axis=-1, keepdims=True)
