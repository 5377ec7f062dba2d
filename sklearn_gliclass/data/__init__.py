"""Conversion of texts and labels to batches of token ids."""
