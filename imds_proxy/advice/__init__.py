"""What people ask of a policy before they trust it: check, explain, test, suggest."""
