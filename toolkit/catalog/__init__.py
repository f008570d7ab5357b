"""Item, Catalog, readers, filters, facts and text encoders. Knows nothing of semantic IDs or of the model."""
