"""Metrics, protocols, baselines and reports. A score never travels without its protocol, n and interval."""
