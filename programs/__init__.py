"""DSPy programs: signatures, the recommender, the chat, the served tools, the mixture optimizer."""

if not __name__.startswith("gcrs."):
    raise ImportError("import gcrs.programs, not programs: the bare name would load every module twice")
