"""What came out, for people: pages, charts, tables, and the examples that a model was wrong about."""
