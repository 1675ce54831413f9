"""What commands share that work on many files or for hours: their files, their progress, and drafts that stay."""
