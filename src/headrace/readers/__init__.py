"""Reading raw files into batches of examples: tables, arrays, folders, TFRecords; what workload files build on."""
