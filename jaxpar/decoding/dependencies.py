"""Which token became final in which round, and on what it waited: the dependency graph of a decoding run.

After Santilli et al.'s visualizer (arXiv 2305.10427, section 4): what a text's tokens depend on in truth is seen in
how early each of them is right.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from jaxpar.decoding.rounds import Round


class Dependencies(NamedTuple):
    """Of the tokens after the prompt.

    >>> import numpy as np
    >>> waits = Dependencies(final=np.asarray([1, 2]), right=np.asarray([1, 2]), waited=np.asarray([-1, 0]))
    >>> waits.waited.tolist()
    [-1, 0]

    Attributes:
      final: round in which each became final.
      right: round from which on the model said it, whether that was known yet or not.
      waited: the last token before it that its last wrong reading had wrong; -1 where it waited on none.
    """

    final: Int[np.ndarray, " new"]
    right: Int[np.ndarray, " new"]
    waited: Int[np.ndarray, " new"]


def waited_for(rounds: Sequence[Round], tokens: Sequence[int], prompt: int) -> Dependencies:
    """The dependencies of a text, by what each round evaluated and said, from the first round to the last.

    >>> import numpy as np
    >>> rounds = [Round(np.asarray([1 + i]), np.asarray([5 + i]), 2 + i) for i in range(2)]
    >>> waited_for(rounds, [4, 5, 6], prompt=1).final.tolist()
    [1, 2]

    Args:
      tokens: of the text, prompt and all.
      prompt: of them the prompt's.
    """
    text, new = np.asarray(tokens), len(tokens) - prompt
    hits = np.zeros((len(rounds) + 1, new), bool)
    final = np.zeros(new, np.int32)
    for number, record in enumerate(rounds, 1):
        prefix = slice(0, record.length - prompt)
        hits[number, prefix] = True
        final[prefix] = np.where(final[prefix] == 0, number, final[prefix])
        # Of several nodes of a tree that speak of one place, one that is right will do.
        for place, token in zip(record.places - prompt, record.said, strict=True):
            if 0 <= place < new:
                hits[number, place] |= token == text[place + prompt]
    last_wrong = np.where(~hits, np.arange(len(rounds) + 1)[:, None], 0).max(axis=0)
    right = last_wrong + 1
    waits = np.full(new, -1)
    for place in np.flatnonzero(right > 1):
        # A round reads what the one before it said: its last wrong reading was said two rounds before it was right.
        wrong = np.flatnonzero(~hits[right[place] - 2, :place])
        waits[place] = wrong[-1] if len(wrong) else -1
    return Dependencies(final, right, waits)
