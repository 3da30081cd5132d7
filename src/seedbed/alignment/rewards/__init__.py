"""What answers are worth to a policy: rules, reward models, and what is done to their sum."""
