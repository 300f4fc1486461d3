"""What decides, wherever it is housed: a map of terminals, the engines, the cuts of the map that jobs are given."""

from controller.intelligence.intelligence import Inside, Intelligence

__all__ = ["Inside", "Intelligence"]
