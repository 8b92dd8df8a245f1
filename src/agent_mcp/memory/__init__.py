"""What is known about actors beyond their sessions: facts, where they are kept, and how agents come to see them."""
