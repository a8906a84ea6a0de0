"""The root side: Linux accounts and runner units, asked for over the broker socket."""
