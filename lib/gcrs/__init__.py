"""gcrs: a generative conversational recommender over the catalogue that you bring."""

__version__ = "0.1.0"
