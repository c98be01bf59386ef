"""Scores of single samples: how strongly a network has memorized each, and how well the scores find wrong labels."""

from landscape.memorization.detection import detection
from landscape.memorization.ranking import samples
from landscape.memorization.score_kinds import SCORES, ScoreKind

__all__ = ["SCORES", "ScoreKind", "detection", "samples"]
