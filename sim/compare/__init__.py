"""Algorithms against each other: the same fleets and seeds, every rival tuned on the same budget."""
