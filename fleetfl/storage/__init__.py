"""What a process has on disk: journal, checkpoints, backups, whole or not at all."""
