"""From a folder or a CSV file to batches: listing, splitting, examining, decoding."""
