"""Recipes that carry a language model from raw text to an aligned model on the Hugging Face stack.

Importing this package costs nothing: every heavy library is imported by the module that uses it.
"""

__version__ = "0.1.0.dev0"
