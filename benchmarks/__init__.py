"""Speed, measured as a ratio against a named alternative in one run. Results are kept as JSON beside the scripts."""
