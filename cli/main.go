package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// greenplum lists the verbs that are programs of their own when the binary is
// called by their name.
var greenplum = []string{"gpconfig", "gpstop", "gpstart", "gpstate"}

// Main runs the command line argv, the program's name included, and returns
// the exit status: 0 done, 1 failed, 2 wrong arguments; Greenplum's utilities
// have theirs. SIGINT and SIGTERM end the context that commands run with.
func Main(argv []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return run(ctx, argv, os.Stdout, os.Stderr)
}

// alone makes a verb a program of its own.
func alone(root *cobra.Command, name string) *cobra.Command {
	for _, cmd := range root.Commands() {
		if cmd.Name() == name {
			root.RemoveCommand(cmd)
			cmd.GroupID, cmd.SilenceUsage, cmd.SilenceErrors = "", true, true
			cmd.CompletionOptions.DisableDefaultCmd = true
			return cmd
		}
	}
	return root
}

func run(ctx context.Context, argv []string, stdout, stderr io.Writer) int {
	root := newRootCommand()
	args := argv[min(1, len(argv)):]
	own := args // without the utility's name
	if name := filepath.Base(append(argv[:len(argv):len(argv)], "")[0]); slices.Contains(greenplum, name) {
		root = alone(root, name)
	} else if len(args) > 0 {
		own = args[1:]
	}
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	ctx = context.WithValue(ctx, argsKey{}, own)
	err := root.ExecuteContext(ctx)
	code, say := exitCode(err)
	if !say {
		return code
	}
	var usage *usageError
	at := root
	if errors.As(err, &usage) {
		at = usage.cmd
	} else if found, _, e := root.Find(args); e == nil {
		at = found
	}
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(stderr, "%s: error: %s\n", at.CommandPath(), strings.TrimSuffix(line, "\n"))
	}
	// A word that is no verb comes from cobra as a bare error.
	if usage != nil || at == root {
		fmt.Fprintf(stderr, "See '%s --help'.\n", at.CommandPath())
		return max(code, 2)
	}
	return code
}
