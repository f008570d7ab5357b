"""Semantic IDs: quantizers, collisions, codebook and the prefix tree. Knows nothing of text or of the model."""
