"""What a bundle is made of: graphs that serve, recorded examples, assets, other formats, and how well all agree."""
