"""Its library is not installed."""

import no_such_library_of_attention  # noqa: F401
