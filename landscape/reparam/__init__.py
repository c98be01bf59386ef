"""Symmetries of networks: find them, move along them, and certify which measures change."""

from landscape.reparam.attack import Attack, attack
from landscape.reparam.certify import certificate
from landscape.reparam.factors import spaced
from landscape.reparam.moving.matrices import largest_condition, random_matrix
from landscape.reparam.moving.move import mix, move
from landscape.reparam.scaling import apply, factors, rescale, scales_for, smallest_scales
from landscape.reparam.target import Solution, TraceBlocks, solve_alpha, trace_blocks
from landscape.reparam.trace_target import TraceAlong, trace_along
from landscape.symmetry.finding import find_symmetries
from landscape.symmetry.symmetries import Pinned, Symmetries, Unit

__all__ = [
    "Attack",
    "Pinned",
    "Solution",
    "Symmetries",
    "TraceAlong",
    "TraceBlocks",
    "Unit",
    "apply",
    "attack",
    "certificate",
    "factors",
    "find_symmetries",
    "largest_condition",
    "mix",
    "move",
    "random_matrix",
    "rescale",
    "scales_for",
    "smallest_scales",
    "solve_alpha",
    "spaced",
    "trace_along",
    "trace_blocks",
]
