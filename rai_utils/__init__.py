"""Helpers of the RAI study: model, relaxed loss, training, diagnostics, plotting."""
