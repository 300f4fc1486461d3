"""Coverage-guided fuzzing of everything that reads bytes from the network: ``make fuzz SECONDS=600``.

``targets.py`` has the targets, plain functions of bytes (the unit tests call them too); ``child.py`` runs one of them
under atheris (libFuzzer); ``__main__.py`` runs all of them, each for its share of the time, and says what came of it.
"""
