"""A trained model in use: evaluated, asked, exported, served and explained."""
