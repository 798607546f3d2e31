"""Models as Hugging Face writes them: a config.json becomes a description, without any of its software.

Which fields a family has, what they mean and what their absence stands for is taken from its configuration class
[Transformers2026]; where the repository brings its own code, from what that code reads.
"""
