"""The site: Flower ClientApp and its handlers."""
