"""Versions of the model as coded differences that everybody holds to the bit."""
