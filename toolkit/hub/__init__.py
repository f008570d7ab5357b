"""Bundles on their way between machines: directories and the Hugging Face hub as remotes. Knows nothing of models."""
