"""What chapters share to show results."""
