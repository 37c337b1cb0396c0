"""What the notebook rai-questions-generalisation measures."""
