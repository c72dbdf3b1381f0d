"""Registry of releases on disk: their origin and scores, and requests to roll back or to ban."""
