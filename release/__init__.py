"""What a release is made of: the package built twice, its bill of materials, its evidence."""
