"""What settings there are and what they mean, told from their schemas."""
