"""What gcrs costs, each row beside a named baseline of the same run; `rows.py` has the list."""
