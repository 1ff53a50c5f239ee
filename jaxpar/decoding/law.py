"""From a model's logits to the law that a token is drawn from, and to the token that given noise draws.

With the noise of each place drawn before decoding begins, the token is a function of those before it (Gumbel-max: the
largest of log p + g has the law p), and sampled decoding a deterministic system.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int

from jaxpar.checks import number, shown, whole
from jaxpar.core import InputError

Logits = Float32[Array, "*batch vocabulary"]

ROUNDING = 4 * float(jnp.finfo(jnp.float32).eps)
"""Share of a probability that sums of float32 may miss it by."""
TINY = float(jnp.finfo(jnp.float32).tiny)
"""Below it float32 has zero, by which no logit can be divided or multiplied."""


@dataclass(frozen=True)
class Law:
    """What is made of logits, in this order; the defaults leave them as they are.

    >>> law = Law(temperature=0.5, top_k=2)
    >>> [round(p, 3) for p in jnp.exp(law.log_probabilities(jnp.asarray([0.0, 1.0, 2.0]))).tolist()]
    [0.0, 0.119, 0.881]

    Attributes:
      repetition: logits of tokens that were there before are divided by this where positive, multiplied where negative
        (arXiv 1909.05858, section 4.1).
      temperature: logits are divided by it; 0 takes the most likely token.
      top_k: only so many of the likeliest tokens are kept; 0 for all.
      top_p: only the likeliest, as few as together have this probability (nucleus, arXiv 1904.09751).
      min_p: only those with at least this share of the likeliest one's probability (arXiv 2407.01082).
      typical: only those nearest to the entropy, as few as together have this probability (arXiv 2202.00666).
      eta: only those above min(eta, sqrt(eta) exp(-entropy)) (arXiv 2210.15191); 0 for all.

    Where a filter takes some of several equally likely tokens, it takes those of the lowest numbers, as argmax does.
    """

    repetition: float = 1.0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical: float = 1.0
    eta: float = 0.0

    def __post_init__(self):
        bounds: dict[str, dict[str, float]] = {
            "repetition": {"least": TINY, "most": 1 / TINY}, "temperature": {"least": 0.0},
            "top_p": {"above": 0.0, "most": 1.0}, "min_p": {"least": 0.0, "most": 1.0},
            "typical": {"above": 0.0, "most": 1.0}, "eta": {"least": 0.0, "below": 1.0},
        }  # fmt: skip
        for name, bound in bounds.items():
            value = number(name, getattr(self, name), **bound)
            if isinstance(value, jax.core.Tracer):
                raise InputError(f"{name} is {shown(value)}; a law's settings must be numbers before tracing")
            object.__setattr__(self, name, float(value))
        object.__setattr__(self, "top_k", whole("top_k", self.top_k, least=0))

    @property
    def greedy(self) -> bool:
        """Whether no noise is needed."""
        return self.temperature == 0

    def log_probabilities(
        self, logits: Float[Array, "*batch vocabulary"], seen: Bool[Array, "*batch vocabulary"] | None = None
    ) -> Logits:
        """Of every token, float32; minus infinity of those that are not kept, and of equal ones the first are.

        Logits are at least float32 from here on, whatever the model's are. Where one of them is NaN or all are minus
        infinity there is no law, and NaN is what comes; but a temperature of 0 takes what argmax takes.

        Args:
          seen: tokens that were there before; needed where there is a `repetition` penalty.
        """
        logits = jnp.asarray(logits)
        if not logits.ndim or not jnp.issubdtype(logits.dtype, jnp.floating):
            raise InputError(f"logits are {shown(logits)}; they must be floating-point numbers (*batch, vocabulary)")
        if jnp.finfo(logits.dtype).bits < 32:
            logits = logits.astype(jnp.float32)
        if self.repetition != 1:
            if seen is None:
                raise InputError("a penalty of repetition needs to know which tokens were there before")
            logits = jnp.where(seen, jnp.where(logits < 0, logits * self.repetition, logits / self.repetition), logits)
        if self.greedy:
            best = jax.nn.one_hot(logits.argmax(axis=-1), logits.shape[-1], dtype=bool)
            return jnp.where(best, 0.0, -jnp.inf)
        logits = _divided(logits, self.temperature)
        if 0 < self.top_k < logits.shape[-1]:
            likeliest = jax.lax.top_k(logits, self.top_k)[1]  # of equal ones the first
            logits = _only(_marked(likeliest, jnp.ones_like(likeliest, bool), logits.shape), logits)
        if self.top_p < 1:
            logits = _only(_first_with_mass(-logits, logits, self.top_p), logits)
        if self.min_p > 0:
            chances = jax.nn.softmax(logits, axis=-1)
            least = self.min_p * (1 - ROUNDING) * chances.max(axis=-1, keepdims=True)
            logits = _only(chances >= least, logits)
        if self.typical < 1:
            gap = jnp.abs(-jax.nn.log_softmax(logits, axis=-1) - _entropy(logits))
            logits = _only(_first_with_mass(gap, logits, self.typical), logits)  # perhaps without the likeliest one
        if self.eta > 0:
            least = jnp.minimum(self.eta, self.eta**0.5 * jnp.exp(-_entropy(logits)))
            logits = _only(jax.nn.softmax(logits, axis=-1) >= least * (1 - ROUNDING), logits)
        return jax.nn.log_softmax(logits, axis=-1).astype(jnp.float32)

    def choose(
        self,
        logits: Float[Array, "*batch vocabulary"],
        noise: Logits | None = None,
        seen: Bool[Array, "*batch vocabulary"] | None = None,
    ) -> Int[Array, "*batch"]:
        """The token that Gumbel noise draws; the most likely one needs none."""
        log_p = self.log_probabilities(logits, seen)
        if self.greedy:
            return log_p.argmax(axis=-1)
        if noise is None:
            raise InputError(f"a temperature of {self.temperature} draws tokens; give noise to draw them with")
        return (log_p + noise).argmax(axis=-1)


def _divided(logits: Logits, temperature: float) -> Logits:
    """Logits above the likeliest one's, divided by the temperature, however small that is: the same law."""
    top = logits.max(axis=-1, keepdims=True)
    below = jnp.where((logits == top) & (top > -jnp.inf), 0, logits - top)
    tiny, lift = float(jnp.finfo(jnp.float32).tiny), 2.0**126
    if temperature >= tiny:
        return below / min(temperature, lift)  # a larger one leaves nothing of float32's logits either
    # Float32 has no such divisor: both are lifted, and what overflows then had no chance before.
    return below * lift / max(temperature * lift, tiny)


def _only(kept: Bool[Array, "*batch vocabulary"], logits: Logits) -> Logits:
    return jnp.where(kept, logits, -jnp.inf)


def _marked(tokens: Int[Array, "*batch some"], marks: Bool[Array, "*batch some"], shape: tuple[int, ...]) -> Array:
    """A mark for each token of a vocabulary, from those of some tokens."""
    return jnp.put_along_axis(jnp.zeros(shape, bool), tokens, marks, axis=-1, inplace=False)


def _first_with_mass(score: Logits, logits: Logits, mass: float) -> Bool[Array, "*batch vocabulary"]:
    """The tokens of the least scores that together have this probability: as few as will do, of equal ones the first.

    A sum that falls short of it by rounding alone will do.
    """
    order = jnp.argsort(score, axis=-1, stable=True)
    chances = jnp.take_along_axis(jax.nn.softmax(logits, axis=-1), order, axis=-1)
    before = jnp.concatenate([jnp.zeros_like(chances[..., :1]), jnp.cumsum(chances, axis=-1)[..., :-1]], axis=-1)
    mask = (before < mass * (1 - ROUNDING)).at[..., 0].set(True)
    return _marked(order, mask, logits.shape)


def _entropy(logits: Logits) -> Float32[Array, "*batch 1"]:
    log_p = jax.nn.log_softmax(logits, axis=-1)
    return -jnp.where(jnp.isfinite(log_p), jnp.exp(log_p) * log_p, 0).sum(axis=-1, keepdims=True)
