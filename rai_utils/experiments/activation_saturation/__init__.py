"""What the notebook activation-saturation measures."""
