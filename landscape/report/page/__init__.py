"""One HTML file that holds a whole report."""
