"""Scripts that run experiments, one a method."""

import star_keras  # noqa: F401  (before keras: selects its backend)
