"""The session model: states, their transitions and the operations on them."""
