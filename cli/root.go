package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

// commands makes the verbs. Files of this package fill it while the package
// is initialised; the order means nothing.
var commands []func() *cobra.Command

func register(f func() *cobra.Command) bool {
	commands = append(commands, f)
	return true
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "trunkline",
		Short: "Interconnect proxies for Greenplum, and a cluster to run them on",
		Long: `Trunkline carries the interconnect traffic of a Greenplum system over one
network connection between any two instances.

Beside the instances of a Greenplum cluster run "trunkline proxy". To see it
all on one machine, make a cluster with "trunkline cluster create".`,
		Version:       version,
		Args:          noCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return &usageError{cmd, err} })
	root.AddGroup(&cobra.Group{ID: groupGreenplum, Title: "Greenplum's utilities (also commands of their own):"})
	for _, f := range commands {
		root.AddCommand(f())
	}
	for _, cmd := range root.Commands() {
		checkArgs(cmd)
	}
	return root
}

func noCommand(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("unknown command %q", args[0])
	}
	return nil
}

// checkArgs makes refused arguments of a verb, and of what is below it, usage
// errors.
func checkArgs(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return &usageError{cmd, err}
			}
			return nil
		}
	} else if cmd.HasSubCommands() {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := noCommand(cmd, args); err != nil {
				return &usageError{cmd, err}
			}
			return nil
		}
	}
	if cmd.HasSubCommands() && !cmd.Runnable() {
		// Without this cobra prints the help of a wrong word, and exits 0.
		cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	}
	for _, sub := range cmd.Commands() {
		checkArgs(sub)
	}
}

// usageError says that the command line is wrong. Its exit status is 2.
type usageError struct {
	cmd *cobra.Command
	err error
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// exitError carries the exit status of the program.
type exitError struct {
	code int
	err  error // nil when all has been said
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// exitWith makes the program end with a status. With a nil err nothing more is
// printed: the command has said what there is to say.
func exitWith(code int, err error) error { return &exitError{code, err} }

// exitCode is the status for what a command returned, and whether the error
// is still to be printed.
func exitCode(err error) (code int, say bool) {
	var exit *exitError
	var usage *usageError
	switch {
	case err == nil:
		return 0, false
	case errors.As(err, &exit):
		return exit.code, exit.err != nil
	case errors.As(err, &usage):
		return 2, true
	default:
		return 1, true
	}
}
