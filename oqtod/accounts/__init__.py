"""Who people are: platform users, passwords and tokens."""
