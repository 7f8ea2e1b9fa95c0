"""A planted password that must not be found wherever something is shown or kept."""
