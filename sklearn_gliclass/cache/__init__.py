"""Cached hidden states: each text is encoded once, and the heads train and predict on the result."""
