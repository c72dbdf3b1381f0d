"""What hostile vehicles do to a fleet."""
