"""Getting raw files: from the cache, by hand, from a mirror or their origin; archives; what TFDS prepares."""
