"""Ways of inference: how deployed models answer a query, in plain PyTorch; nothing here knows a network.

``split``: one model in two parts, at two places. ``switched``: a cheap model answers, a large one where that is in
doubt. ``collaborative``: several models answer together. ``multimodal``: one model for each kind of input. ``costs``:
what a query takes; ``wire``: activations and probabilities as bytes; ``calibrate``: probabilities that mean what they
say; ``pair``: the cheap model of the vignettes; ``vitals``: the same patients by their vital signs, and their model;
``models``: which of these a task has; ``cascade``, ``fusion``: what an MPVU learns for one.
"""
