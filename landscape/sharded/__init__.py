"""Networks whose weights are sharded over processes: exact curvature or differences of gradients, and measures of values."""

from landscape.sharded.sharded_objective import ShardedObjective

__all__ = ["ShardedObjective"]
