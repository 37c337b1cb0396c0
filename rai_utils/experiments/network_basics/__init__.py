"""What the notebook network-basics measures."""
