"""DSPy programs: signatures, the recommender and (later) the mixture optimizer and tool faces."""

if not __name__.startswith("gcrs."):
    raise ImportError("import gcrs.programs, not programs: the bare name would load every module twice")
