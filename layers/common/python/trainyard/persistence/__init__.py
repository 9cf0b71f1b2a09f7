"""The items of the tables: their form, their owners, and the transactions that change several of them."""
