"""Applies the journal's rows to the model, each once and in order, and recovers from damage. No Ray here."""
