"""Turns, dialogues, mention linking and `encode()`. Knows nothing of weights."""
