package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/trunkline-db/trunkline/cluster"
	"github.com/trunkline-db/trunkline/instance"
	"github.com/trunkline-db/trunkline/topology"
)

// clusterBootstrap makes the catalog in a new instance's databases.
var clusterBootstrap func(ctx context.Context, inst topology.Instance, socketDir string) error

var _ = register(newClusterCommand)

func newClusterCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cluster",
		Short: "Make, start, stop and remove a cluster on this machine",
		Long: `A cluster is a coordinator, primaries and, if wanted, a standby of the
coordinator: real PostgreSQL servers on this machine, all in one directory.

    trunkline cluster create /srv/mpp --standby
    . /srv/mpp/env.sh
    psql -d postgres

PostgreSQL refuses to run as root. Made by root, a cluster belongs to the
system user "postgres" and runs as that user.

Where start, stop, status and load take DIR, any directory below it does as
well.`,
	}
	cmd.AddCommand(newClusterCreateCommand(), newClusterStartCommand(), newClusterStopCommand(),
		newClusterStatusCommand(), newClusterDestroyCommand(), newClusterLoadCommand())
	return cmd
}

func newClusterCreateCommand() *cobra.Command {
	var o cluster.Options
	cmd := &cobra.Command{
		Use:   "create DIR",
		Short: "Make a cluster in DIR and start it",
		Long: `Make a cluster in DIR, which must be absent or empty, and start it.

The coordinator gets the port given, each other instance the next one. All
listen on the address given, loopback by default, and let everybody in from
this machine without a password; each instance's pg_hba.conf shows how to ask
for one. The superuser is "gpadmin".

DIR/env.sh sets PATH, PGHOST, PGPORT, PGUSER, COORDINATOR_DATA_DIRECTORY and
MASTER_DATA_DIRECTORY; DIR/bin has gpconfig, gpstop, gpstart and gpstate.

Directory, ports and PostgreSQL's programs are checked before anything is
made. A create that fails or is interrupted leaves nothing behind.

When root makes a cluster where the user "postgres" may not go, its files go
to /var/lib/trunkline and DIR becomes a link to them.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			out := cmd.OutOrStdout()
			o.Dir, o.Bootstrap = args[0], clusterBootstrap
			o.Progress = printer(out)
			if o.Segments < 1 {
				return &usageError{cmd, fmt.Errorf("--segments %d: a cluster has at least one", o.Segments)}
			}
			if o.Port < 1 {
				return &usageError{cmd, fmt.Errorf("--port %d: ports go from 1 to 65535", o.Port)}
			}
			if _, err := cluster.Create(cmd.Context(), o); err != nil {
				return interrupted(cmd.Context(), err)
			}
			fmt.Fprintf(out, "\nThe cluster runs. To use it:\n    . %s\n    psql -d postgres\n", filepath.Join(args[0], "env.sh"))
			return nil
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.Segments, "segments", cluster.DefaultSegments, "number of primaries")
	f.BoolVar(&o.Standby, "standby", false, "with a standby of the coordinator")
	f.IntVar(&o.Port, "port", cluster.DefaultPort, "the coordinator's port; the others have the next ones")
	f.StringVar(&o.Address, "address", cluster.DefaultAddress, "host name or address to listen on")
	return cmd
}

func newClusterStartCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "start DIR",
		Short: "Start a cluster",
		Long: `Start every instance that does not run and wait until all serve. Starting a
cluster that runs does nothing. What a crash left behind is cleared, and
PostgreSQL recovers by itself.

From then on an instance that dies is started again by its neighbour, until
the cluster is stopped.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := cluster.Open(args[0])
			if err == nil {
				err = c.Start(cmd.Context(), cluster.StartOptions{Progress: printer(cmd.OutOrStdout())})
			}
			return interrupted(cmd.Context(), err)
		},
	}
}

func newClusterStopCommand() *cobra.Command {
	var mode string
	o := cluster.StopOptions{}
	cmd := &cobra.Command{
		Use:   "stop DIR",
		Short: "Stop a cluster",
		Long: `Stop every instance, the coordinator first. Modes, as PostgreSQL's:

    fast       end the sessions, roll back what they were doing (default)
    smart      only when no session is open
    immediate  as a crash would; the next start recovers

Stopping a cluster that does not run is no error.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Mode, o.Progress = cluster.Mode(mode), printer(cmd.OutOrStdout())
			switch o.Mode {
			case cluster.Fast, cluster.Smart, cluster.Immediate:
			default:
				return &usageError{cmd, fmt.Errorf("--mode %q: it is fast, smart or immediate", mode)}
			}
			c, err := cluster.Open(args[0])
			if err == nil {
				err = c.Stop(cmd.Context(), o)
			}
			if errors.Is(err, cluster.ErrNotRunning) {
				fmt.Fprintln(cmd.OutOrStdout(), err)
				return nil
			}
			return interrupted(cmd.Context(), err)
		},
	}
	cmd.Flags().StringVarP(&mode, "mode", "M", string(cluster.Fast), "fast, smart or immediate")
	cmd.Flags().DurationVar(&o.Timeout, "timeout", cluster.DefaultStopTimeout, "how long an instance may take")
	return cmd
}

func newClusterDestroyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "destroy DIR",
		Short: "Stop a cluster and remove it with all its data",
		Long: `End every process of the cluster and remove its files. Nothing is asked, and
nothing can be brought back. A directory that is not a cluster's is refused;
files in DIR that are not the cluster's are left there.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := cluster.Open(args[0])
			if err == nil {
				if real, rerr := filepath.EvalSymlinks(args[0]); rerr != nil || !sameDir(real, c.Dir()) {
					return fmt.Errorf("%s is only part of the cluster in %s: to remove all of it, name that directory", args[0], c.Dir())
				}
				err = c.Destroy(cmd.Context())
			}
			if err == nil {
				fmt.Fprintf(cmd.OutOrStdout(), "%s: removed\n", args[0])
			}
			return interrupted(cmd.Context(), err)
		},
	}
}

func sameDir(a, b string) bool {
	a, err := filepath.Abs(a)
	return err == nil && a == b
}

func newClusterStatusCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status DIR",
		Short: "Show the state of each instance of a cluster",
		Long: `Show each instance with its processes and ports. States:

    ready      it serves
    starting   it, or its PostgreSQL server, is on its way up
    stopping   it is on its way down
    down       it was stopped
    dead       it should run and does not; its neighbour starts it again

With --json the same as one JSON object. Exit status: 0 when all are ready,
else 1.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := cluster.Open(args[0])
			if err != nil {
				return err
			}
			list, err := c.Status(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				err = writeStatusJSON(cmd.OutOrStdout(), c, list)
			} else {
				err = writeStatus(cmd.OutOrStdout(), list)
			}
			if err != nil {
				return err
			}
			for _, st := range list {
				if st.State() != string(instance.Ready) {
					return exitWith(1, nil)
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func kindOf(i topology.Instance) string {
	switch {
	case i.IsCoordinator():
		return "coordinator"
	case i.IsStandby():
		return "standby"
	case i.IsPrimary():
		return "primary"
	}
	return "mirror"
}

func writeStatus(w io.Writer, list []cluster.InstanceStatus) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "INSTANCE\tDBID\tCONTENT\tADDRESS\tSTATE\tPID\tPOSTGRES\tPROXY\tPROXY ADDRESS")
	child := func(c instance.ChildStatus) string {
		if c.Pid == 0 {
			return "-"
		}
		return fmt.Sprintf("%s (%d)", c.State, c.Pid)
	}
	dash := func(s string) string {
		if s == "" || s == "0" {
			return "-"
		}
		return s
	}
	for _, st := range list {
		fmt.Fprintf(tw, "%s\t%d\t%d\t%s\t%s\t%s\t%s\t%s\t%s\n", kindOf(st.Instance), st.Dbid, st.Content,
			net.JoinHostPort(st.Address, strconv.Itoa(st.Port)), st.State(), dash(fmt.Sprint(st.Pid)), child(st.Live.Postgres),
			child(st.Live.Proxy), dash(st.ProxyAddress))
	}
	return tw.Flush()
}

// The schema of `cluster status --json`. Fields are only ever added.
type (
	statusDoc struct {
		Dir       string        `json:"dir"`
		Instances []instanceDoc `json:"instances"`
	}
	instanceDoc struct {
		Kind     string   `json:"kind"` // coordinator, standby, primary or mirror
		Dbid     uint16   `json:"dbid"`
		Content  int16    `json:"content"`
		Address  string   `json:"address"`
		Port     int      `json:"port"`
		Datadir  string   `json:"datadir"`
		State    string   `json:"state"`
		Pid      int      `json:"pid"` // 0 when it does not run, as below
		Postgres childDoc `json:"postgres"`
		Proxy    childDoc `json:"proxy"`
		Sessions int      `json:"sessions"`
		// InSync tells, for the coordinator, whether commits wait for the standby.
		InSync bool `json:"in_sync"`
	}
	childDoc struct {
		Pid      int    `json:"pid"`
		State    string `json:"state"`
		Restarts int    `json:"restarts"`
		Address  string `json:"address,omitempty"` // of the proxy
	}
)

func writeStatusJSON(w io.Writer, c *cluster.Cluster, list []cluster.InstanceStatus) error {
	doc := statusDoc{Dir: c.Dir()}
	child := func(s instance.ChildStatus) childDoc {
		state := string(s.State)
		if state == "" {
			state = string(instance.Down)
		}
		return childDoc{Pid: s.Pid, State: state, Restarts: s.Restarts}
	}
	for _, st := range list {
		d := instanceDoc{
			Kind: kindOf(st.Instance), Dbid: st.Dbid, Content: st.Content, Address: st.Address, Port: st.Port,
			Datadir: st.Datadir, State: st.State(), Pid: st.Pid, Postgres: child(st.Live.Postgres),
			Proxy: child(st.Live.Proxy), Sessions: st.Live.Sessions, InSync: st.Live.SyncStandby != "",
		}
		d.Proxy.Address = st.ProxyAddress
		doc.Instances = append(doc.Instances, d)
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(doc)
}

// printer prints progress lines with the time they took since the first.
func printer(w io.Writer) func(string) {
	began := time.Now()
	return func(s string) { fmt.Fprintf(w, "%5.1fs  %s\n", time.Since(began).Seconds(), s) }
}

// interrupted replaces the error of a command that Ctrl-C ended.
func interrupted(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return exitWith(130, errors.New("interrupted"))
	}
	return err
}
