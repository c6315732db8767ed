"""What streams are needed for: interventions in a model's own forward, their effects as tables and
matrices, and the collapse of a trained model to fewer streams."""
