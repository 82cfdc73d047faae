"""What this machine has and lacks: packages, decoders, devices, memory, disk."""
