"""What a run keeps on disk: graded samples, decisions, metrics, weights, settings."""
