// Package cli is the command line: one file a verb.
//
// The program is one binary. [Main] chooses the verb by the name it was called
// by (gpconfig, gpstop, gpstart, gpstate) or by its first word. A verb's file
// adds itself with
//
//	var _ = register(newXxxCommand)
//
// and returns its failures from RunE: a [*cobra.Command] never exits by
// itself. [exitWith] chooses another exit status than 1.
package cli
