package cli

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/trunkline-db/trunkline/datadir"
	"github.com/trunkline-db/trunkline/instance"
)

// instanceServers makes the network servers of an instance: client sessions
// on the coordinator, slice execution on the segments.
var instanceServers func(instance.Info) ([]instance.Server, error)

// exitRunning is the status of an instance command whose instance runs
// already: not a failure for whoever wanted it to run.
const exitRunning = 3

var _ = register(newInstanceCommand)

func newInstanceCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "instance -D DATADIR",
		Short: "Run one instance of a cluster in the foreground",
		Long: `Run one instance of a cluster: its PostgreSQL server, its proxy and the
server on its port. A child that dies is started again; when this process
ends, however it ends, so do its children.

"trunkline cluster start" starts all instances of a cluster this way, in the
background. Use this command to run one under another supervisor, or to see
what it says; it logs to standard error.

Signals, as PostgreSQL's: SIGHUP reloads the configuration; SIGTERM ends when
the last client has left, SIGINT now, SIGQUIT without a clean shutdown.

Exit status: 0 after a stop, 3 when the instance runs already, else 1.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runInstance(dir)
		},
	}
	cmd.Flags().StringVarP(&dir, "data", "D", "", "data directory of the instance")
	_ = cmd.MarkFlagRequired("data")
	return cmd
}

func runInstance(dir string) error {
	n := instance.NewNotifier()
	abs, err := filepath.Abs(dir)
	if err == nil {
		abs, err = filepath.EvalSymlinks(abs)
	}
	if err == nil {
		// The instance has its own meaning for SIGINT and SIGTERM, so the
		// command line's context is not for it.
		err = instance.Run(context.Background(), datadir.Dir(abs), instance.Options{
			Servers: instanceServers, Ready: n.Ready, OnlyIfWanted: instance.StartedAgain(),
		})
	}
	if err == nil {
		return nil
	}
	n.Failed(err)
	if errors.Is(err, instance.ErrRunning) || errors.Is(err, instance.ErrUnwanted) {
		if instance.StartedAgain() {
			return exitWith(exitRunning, nil) // started by a neighbour, to no purpose: nothing to say
		}
		return exitWith(exitRunning, err)
	}
	return err
}
