"""What happens around runs: loading the code location, schedules, retention, alerts."""
