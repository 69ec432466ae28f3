"""What people look at: tables, pictures, comparisons."""
