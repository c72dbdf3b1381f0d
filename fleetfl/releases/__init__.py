"""Releases: versions of the model as coded differences that all sides hold to the bit."""
