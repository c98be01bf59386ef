"""Checks of every surface, printed and stored with it."""
