"""What happened, told for people: the log of events, and the schema that says what its lines mean."""
