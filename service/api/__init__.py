"""Who may ask: HTTP only, thin handlers."""
