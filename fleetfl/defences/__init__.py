"""What an update has to pass before it is counted, so that no vehicle owns the model or the server."""
