"""Evaluation of releases: held-out frames, and accuracy by weather condition."""
