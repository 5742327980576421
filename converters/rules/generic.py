"""Any other tree: leaf for leaf, under the names it has."""

from converters.rules.apply import Rule

RULES = (Rule("{path*}", "{path*}"),)
