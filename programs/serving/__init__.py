"""The recommender as a service: one schema of four tools, and the faces made from it (DSPy, MCP, HTTP, OpenAI)."""
