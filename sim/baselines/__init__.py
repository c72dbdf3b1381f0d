"""Baselines for a fleet's accuracy: the initial model, and centralized training on pooled data."""
