"""What a terminal learns: data, model, training and testing in plain PyTorch; runs alone (``python -m
hosts.learning``).
"""
