"""`oqtoctl doctor`: finds what is wrong with an installation, says what to do, and repairs what is safe."""
