"""Real runs with faults at random but seeded moments, and the ledger of what became of every update."""
