"""What vehicles and server say to each other: messages, frames, signatures, chunks, topics, addresses."""
