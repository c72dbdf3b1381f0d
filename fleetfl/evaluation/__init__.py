"""How good a release is: held-out frames and scores by group."""
