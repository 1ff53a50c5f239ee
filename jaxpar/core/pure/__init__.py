"""Functions of users as pure programs that can be compared, kept, and evaluated at guesses."""
