"""What chapters share to show results: stored scores as a table, and the figures' style."""
