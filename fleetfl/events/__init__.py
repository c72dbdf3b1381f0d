"""The log of events for people and reports, and the schema of its lines."""
