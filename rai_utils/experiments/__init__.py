"""What one notebook measures, each in a file or folder named like it; and the long runs."""
