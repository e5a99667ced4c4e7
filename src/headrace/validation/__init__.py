"""What data must look like: declared features, the schema that a person reviews, and what is odd."""
