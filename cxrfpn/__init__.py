"""What training and evaluation need and inference does not: data, training, evaluation."""
