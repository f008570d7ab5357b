"""Parts without prompts or opinions: catalogue, semantic IDs, dialogues, model, evaluation.

Knows nothing of `gcrs.programs` or `gcrs.cli`, and prints nothing.
"""

if not __name__.startswith("gcrs."):  # the repository root is on sys.path: a second copy of every class
    raise ImportError("import gcrs.toolkit, not toolkit: the bare name would load every module twice")
