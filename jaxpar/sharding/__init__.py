"""Mesh, logical-axis rules, constraints, attention along a cut, reports."""

from jaxpar.extras import extra

with extra("train", "jaxpar.sharding"):
    import flax  # noqa: F401

from jaxpar.sharding.activations import Partition, activate, constrain
from jaxpar.sharding.attention import WAYS, attention, full_attention
from jaxpar.sharding.derive import derive_names
from jaxpar.sharding.mesh import MeshConfig, make_mesh, make_partition
from jaxpar.sharding.ring import ring_attention
from jaxpar.sharding.rules import DEFAULT_RULES, RULE_SETS, Rules, pieces, rule_set, spec
from jaxpar.sharding.weights import check_cuts, sharding_table, state_shardings

__all__ = [
    "DEFAULT_RULES", "RULE_SETS", "WAYS", "MeshConfig", "Partition", "Rules", "activate", "attention", "check_cuts",
    "constrain", "derive_names", "full_attention", "make_mesh", "make_partition", "pieces", "ring_attention",
    "rule_set", "sharding_table", "spec", "state_shardings",
]  # fmt: skip
