"""Fault injection: real fleets with faults at seeded random times, and an account of every update."""
