// Package benchreport holds what the reports of the measuring commands have in
// common: what machine it was, medians, bounds that must hold, tables in three
// forms, and plots as SVG.
package benchreport
