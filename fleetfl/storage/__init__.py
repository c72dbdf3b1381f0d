"""Storage of a process's state on disk: journal, checkpoints and backups, whole or not at all."""
