"""Records: examples as `tf.train.Example` in TFRecord shards, written, and read in any order."""
