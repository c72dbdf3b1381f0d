"""What a fleet is compared with: the initial model, and centralized training."""
