"""Statistics of every kind of feature, in one pass over batches, mergeable over parts of the data."""
