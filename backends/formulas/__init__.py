"""What a formula is made of: its operations, the program that tracing yields, and the complex step."""
