"""What every package may build on, and what knows no other package of the project."""
