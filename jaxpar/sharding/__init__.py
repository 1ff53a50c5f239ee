"""Mesh, logical-axis rules, constraints, reports."""

from jaxpar.sharding.mesh import MeshConfig, make_mesh
from jaxpar.sharding.rules import DEFAULT_RULES, Rules, activate, constrain, sharding_table, spec, state_shardings

__all__ = [
    "DEFAULT_RULES", "MeshConfig", "Rules", "activate", "constrain", "make_mesh", "sharding_table", "spec",
    "state_shardings",
]  # fmt: skip
