"""What the trainings of all examples share: settings, files that are whole, seeds, numbers."""
