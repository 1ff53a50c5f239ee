"""Trees of drafts: which token each draft follows, and which it reads."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from jaxpar.checks import of_kind, whole
from jaxpar.core import InputError


@dataclass(frozen=True, eq=False)
class Shape:
    """Of a tree of drafts; host arrays.

    >>> shape = tree([0, 0, 0, 1])
    >>> shape.nodes, shape.depth.tolist(), shape.chain
    (4, [0, 1, 1, 2], False)

    Attributes:
      parent: of each node, which comes before it; the root's is itself, and that of nodes which are no drafts is -1.
      depth: of each below the root.
      sees: which nodes each one reads, itself included.
    """

    parent: Int[np.ndarray, " nodes"]
    depth: Int[np.ndarray, " nodes"]
    sees: Bool[np.ndarray, "nodes nodes"]

    @property
    def nodes(self) -> int:
        return len(self.parent)

    @property
    def chain(self) -> bool:
        """Whether each node is the parent of the next."""
        return bool((self.parent == np.maximum(np.arange(self.nodes) - 1, 0)).all())


MOST = 2**16
"""Nodes of a tree: which reads which is a table of their number squared."""


def tree(parent: list[int]) -> Shape:
    """The shape in which every node reads those that it descends from.

    >>> tree([0, 0, 0, 1]).sees.astype(int).tolist()
    [[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 0, 1]]
    """
    of_kind("parent", parent, list, "give the parent of each node of a tree, as in [0, 0, 1]")
    parent = [whole(f"the parent of node {node}", value, least=0) for node, value in enumerate(parent)]
    count = whole("the number of nodes of a tree", len(parent), least=1, most=MOST)
    sees, depth = np.eye(count, dtype=bool), np.zeros(count, np.int32)
    for node in range(1, count):
        if not 0 <= parent[node] < node:
            raise InputError(f"node {node} of a tree has the parent {parent[node]}; it must come before it")
        sees[node] |= sees[parent[node]]
        depth[node] = depth[parent[node]] + 1
    return Shape(np.asarray(parent, np.int32), depth, sees)


def chain(nodes: int) -> Shape:
    """One draft after the other, the root included.

    >>> chain(3).parent.tolist()
    [0, 0, 1]
    """
    return tree([max(node - 1, 0) for node in range(whole("nodes", nodes, least=1, most=MOST))])
