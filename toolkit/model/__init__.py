"""Base weights, fine-tuning, engine, bundle: torch, transformers, peft, accelerate, numpy, safetensors alone."""
