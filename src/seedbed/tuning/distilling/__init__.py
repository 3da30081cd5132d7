"""A student model learns from a teacher: not only which token comes next, but how likely each of the others is."""
