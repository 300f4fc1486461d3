"""AATS, autonomous AI traffic steering: objects that find their own way, by code that terminals have (docs/aats.md)."""
