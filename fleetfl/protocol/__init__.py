"""The protocol between vehicles and server: messages, frames, signatures, chunks, topics, addresses."""
