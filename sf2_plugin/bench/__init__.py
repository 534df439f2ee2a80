"""What the head costs, next to a floor and to other projects' heads."""
