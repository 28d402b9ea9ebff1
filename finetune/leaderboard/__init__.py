"""From many finished runs to an answer: which configuration is best, by how much more than noise, and what mattered."""
