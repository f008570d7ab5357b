"""Readers of public data sets' official formats, and the bundles that ship with gcrs."""

if not __name__.startswith("gcrs."):
    raise ImportError("import gcrs.catalogs, not catalogs: the bare name would load every module twice")
