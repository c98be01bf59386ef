"""Mutual information of layers with inputs and labels: binned patterns, kernel bounds, nearest neighbours."""

from landscape.information_plane.layers import ESTIMATORS, information, mutual_information

__all__ = ["ESTIMATORS", "information", "mutual_information"]
