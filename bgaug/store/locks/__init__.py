"""Locks: one writer per shard, several builds per store."""
