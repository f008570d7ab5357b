"""DSPy programs: signatures, the recommender, the mixture optimizer and (later) tool faces."""

if not __name__.startswith("gcrs."):
    raise ImportError("import gcrs.programs, not programs: the bare name would load every module twice")
