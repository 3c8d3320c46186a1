"""Prints the reference page of all settings.

python -m star_keras.config > docs/configuration.md
"""

from star_keras.config import reference

print(reference(), end="")
