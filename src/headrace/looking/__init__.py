"""What a person should see of data: remarks, duplicates, leaks, samples and pictures."""
