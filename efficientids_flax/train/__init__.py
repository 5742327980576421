"""Training: optimizer states and, later, the Trainer."""
