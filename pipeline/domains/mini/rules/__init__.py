"""The rules of the language, a file a category, on `base`, which is what a rule is. Nothing else knows a wording."""
