"""Networks whose weights are sharded over processes: curvature by differences of gradients, and measures of values."""

from landscape.sharded.sharded_objective import ShardedObjective

__all__ = ["ShardedObjective"]
