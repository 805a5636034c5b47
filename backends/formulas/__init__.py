"""What a formula is made of: its operations, and the program that tracing yields."""
