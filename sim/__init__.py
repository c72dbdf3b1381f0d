"""Synthetic fleets: the drone world, and runs of the real agent and server on one machine."""
