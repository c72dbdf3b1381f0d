"""What runs on a vehicle: trains on its own frames, publishes updates. No Ray here."""
