"""Attacks by hostile vehicles, to measure how well the server's defences limit the damage."""
