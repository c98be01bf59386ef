"""Keskar et al. 2017 (arXiv:1609.04836): do large batches find sharper minima that test worse, and why?"""
