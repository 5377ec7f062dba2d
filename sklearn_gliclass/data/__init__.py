"""Texts and labels -> batches of token ids."""
