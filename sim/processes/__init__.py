"""Child processes of a run: brokers, vehicles, the trials of a sweep."""
