"""Losses as weighted means over samples: their structure, their values by sample, and checks on outputs and targets."""
