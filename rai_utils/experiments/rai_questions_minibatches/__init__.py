"""What the notebook rai-questions-minibatches measures."""
