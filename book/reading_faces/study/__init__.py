"""One file a question: each runs an experiment and writes one file of results."""
