package cli

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/trunkline-db/trunkline/cluster"
	"github.com/trunkline-db/trunkline/instance"
	"github.com/trunkline-db/trunkline/topology"
)

var _ = register(newGPStateCommand)

const line61 = "-------------------------------------------------------------"

type gpstate struct {
	*gpTool
	flags gpFlags

	sys    system
	status []cluster.InstanceStatus
}

// coordinatorSQL asks the coordinator one statement.
var coordinatorSQL = func(ctx context.Context, i topology.Instance, sql string) ([][]string, error) {
	s, err := connect(ctx, "gpstate", i.Address, strconv.Itoa(i.Port), "")
	if err != nil {
		return nil, err
	}
	defer s.Close()
	return s.query(ctx, sql)
}

func newGPStateCommand() *cobra.Command {
	var g gpstate
	cmd := newGPCommand("gpstate", "Show the state of the system",
		`Shows how the coordinator, its standby and the segment instances are. Without
an option that chooses it is the summary of -b. The system must be running.

Exit status: 0 all is well, or the option does not judge (-b -c -f -i -p);
1 something is wrong (-e -m -Q -s); 2 failed or wrong options.`)
	g.flags.add(cmd, 16)
	f := cmd.Flags()
	views := []struct {
		short, name, help string
		show              func(context.Context) (int, error)
		on                *bool
	}{
		{"b", "brief", "Show a summary. This is the default.", g.brief, new(bool)},
		{"s", "detail", "Show every instance in detail.", g.detail, new(bool)},
		{"c", "mirror-map", "Show which mirror belongs to which primary.", g.mapping, new(bool)},
		{"e", "problems", "Show mirrored segments that have a problem.", g.problems, new(bool)},
		{"f", "standby", "Show the standby and its replication.", g.standby, new(bool)},
		{"i", "versions", "Show the versions of all instances.", g.versions, new(bool)},
		{"m", "mirrors", "Show the mirrors.", g.mirrors, new(bool)},
		{"p", "ports", "Show the ports of all instances.", g.ports, new(bool)},
		{"Q", "quick", "Show what the configuration says, asking nobody.", g.quick, new(bool)},
	}
	for _, v := range views {
		f.BoolVarP(v.on, v.name, v.short, false, v.help)
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		g.gpTool = newGPTool(cmd, g.flags)
		return g.run(cmd, func(ctx context.Context) (int, error) {
			show, chosen := g.brief, 0
			for _, v := range views {
				if *v.on {
					show = v.show
					chosen++
				}
			}
			if chosen > 1 {
				return 0, argumentError("Too many output options specified")
			}
			if err := g.prepare(ctx); err != nil {
				return 0, err
			}
			return show(ctx)
		})
	}
	return cmd
}

func (g *gpstate) prepare(ctx context.Context) error {
	if g.flags.parallel < 1 || g.flags.parallel > 64 {
		return argumentError(fmt.Sprintf("Invalid parallelDegree provided with -B argument: %d", g.flags.parallel))
	}
	g.info("local Greenplum Version: '%s'", serverVersion)
	var err error
	if g.sys, err = openSystem(g.flags.dataDir); err != nil {
		return err
	}
	if g.status, err = g.sys.Status(ctx); err != nil {
		return err
	}
	c := g.sys.Coordinator()
	if len(running(g.status, topology.Instance.IsCoordinator)) == 0 {
		return fmt.Errorf("could not connect to server: the coordinator on %s, port %d, does not run. Start it with gpstart",
			c.Address, c.Port)
	}
	g.info("coordinator Greenplum Version: '%s'", serverVersion)
	g.info("Obtaining Segment details from coordinator...")
	return nil
}

// made lists the segment instances that were made for a role.
func (g *gpstate) made(role byte) []cluster.InstanceStatus {
	var list []cluster.InstanceStatus
	for _, s := range g.status {
		if isSegment(s.Instance) && s.PreferredRole == role {
			list = append(list, s)
		}
	}
	return list
}

func (g *gpstate) hasMirrors() bool { return len(g.made(topology.RoleMirror)) > 0 }

func (g *gpstate) standbyRows(b *table) {
	s, ok := standbyOf(g.sys.Instances())
	if !ok {
		b.info("Coordinator standby", "= No coordinator standby configured")
		return
	}
	b.info("Coordinator standby", "= "+s.Hostname)
	if serverOf(s).alive {
		b.info("Standby coordinator state", "= Standby host passive")
	} else {
		b.infoOrWarn(true, "Standby coordinator state", "= Standby host DOWN")
	}
}

// brief is -b.
func (g *gpstate) brief(context.Context) (int, error) {
	g.info("Gathering data from segments...")
	g.info("Greenplum instance status summary")
	var b table
	b.separate()
	b.info("Coordinator instance", "= Active")
	g.standbyRows(&b)
	b.info("Total segment instance count from metadata", fmt.Sprintf("= %d", len(segments(g.sys.Instances()))))
	b.separate()
	g.briefSection(&b, "Primary", "primary", topology.RolePrimary)
	g.briefSection(&b, "Mirror", "mirror", topology.RoleMirror)
	b.print(g.gpTool)
	return 0, nil
}

func (g *gpstate) briefSection(b *table, title, word string, role byte) {
	list := g.made(role)
	b.info(title + " Segment Status")
	b.separate()
	if len(list) == 0 && role == topology.RoleMirror {
		b.info("Mirrors not configured on this array")
		b.separate()
		return
	}
	var up, files, pids, locks, alive, acting int
	count := func(n *int, yes bool) {
		if yes {
			*n++
		}
	}
	for _, s := range list {
		srv := serverOf(s.Instance)
		count(&up, s.Status == topology.StatusUp)
		count(&files, srv.pidFile)
		count(&pids, srv.pid > 0)
		count(&locks, srv.lock)
		count(&alive, srv.alive)
		count(&acting, s.Role == topology.RolePrimary)
	}
	n := len(list)
	row := func(bad bool, text string, v int) { b.infoOrWarn(bad && v > 0, text, "= "+strconv.Itoa(v)) }
	row(false, "Total "+word+" segments", n)
	row(false, "Total "+word+" segment valid (at coordinator)", up)
	row(true, "Total "+word+" segment failures (at coordinator)", n-up)
	for _, c := range []struct {
		what  string
		found int
	}{{"of postmaster.pid files", files}, {"of postmaster.pid PIDs", pids}, {"of /tmp lock files", locks}, {"postmaster processes", alive}} {
		row(true, "Total number "+c.what+" missing", n-c.found)
		row(false, "Total number "+c.what+" found", c.found)
	}
	if role == topology.RoleMirror {
		row(true, "Total number mirror segments acting as primary segments", acting)
		row(false, "Total number mirror segments acting as mirror segments", n-acting)
	}
	b.separate()
}

// databaseStatus is what -s says of an instance, and whether it is a warning.
func databaseStatus(s cluster.InstanceStatus) (string, bool) {
	switch {
	case s.Status == topology.StatusDown:
		return "Down in configuration", true
	case s.State() == string(instance.Ready):
		return "Up", false
	case s.State() == string(instance.Starting):
		return "Starting up", true
	case s.State() == string(instance.Stopping):
		return "Shutting down", true
	default:
		return "Process error -- database process may be down", true
	}
}

// warnIfDown says so when some content has no instance that works.
func (g *gpstate) warnIfDown() {
	works, all := map[int16]bool{}, map[int16]bool{}
	for _, s := range g.status {
		if isSegment(s.Instance) {
			_, bad := databaseStatus(s)
			all[s.Content] = true
			works[s.Content] = works[s.Content] || !bad && (s.Role == topology.RolePrimary || s.Mode == topology.ModeSynced)
		}
	}
	for content := range all {
		if !works[content] {
			const stars = "*****************************************************"
			g.warn(stars)
			g.warn("DATABASE IS PROBABLY UNAVAILABLE")
			g.warn("Review Instance Status in log file or screen output for more information")
			g.warn(stars)
			return
		}
	}
}

// detail is -s.
func (g *gpstate) detail(ctx context.Context) (int, error) {
	g.info("Gathering data from segments...")
	c := g.sys.Coordinator()
	rows, err := coordinatorSQL(ctx, c, "SELECT current_setting('server_version')")
	if err != nil {
		return 0, err
	}
	g.info(dashes)
	g.info("-Coordinator Configuration & Status")
	g.info(dashes)
	g.warnIfDown()
	var b table
	b.info("Coordinator host", "= "+c.Hostname)
	b.info("Coordinator postgres process ID", "= "+strconv.Itoa(serverOf(c).pid))
	b.info("Coordinator data directory", "= "+c.Datadir)
	b.info("Coordinator port", "= "+strconv.Itoa(c.Port))
	b.info("Coordinator current role", "= dispatch")
	b.info("Greenplum initsystem version", "= "+serverVersion)
	b.info("Greenplum current version", "= "+serverVersion)
	b.info("Postgres version", "= "+rows[0][0])
	g.standbyRows(&b)
	b.print(g.gpTool)
	warned := b.hasWarnings()

	g.info(dashes)
	g.info("Segment Instance Status Report")
	b = table{}
	for _, s := range g.status {
		if isSegment(s.Instance) {
			b.separate()
			g.segmentRows(&b, s)
		}
	}
	b.print(g.gpTool)
	g.warnIfDown()
	if warned || b.hasWarnings() {
		const stars = "*****************************************************"
		g.warn(stars)
		g.warn("Warnings have been generated during status processing")
		g.warn("Check log file or review screen output")
		g.warn(stars)
		return codeFailed, nil
	}
	return 0, nil
}

func (g *gpstate) segmentRows(b *table, s cluster.InstanceStatus) {
	row := func(warn bool, name, value string) { b.infoOrWarn(warn, "   "+name, "= "+value) }
	b.info("Segment Info")
	row(false, "Hostname", s.Hostname)
	row(false, "Address", s.Address)
	row(false, "Datadir", s.Datadir)
	row(false, "Port", strconv.Itoa(s.Port))
	if g.hasMirrors() {
		b.info("Mirroring Info")
		row(false, "Current role", roleLabel(s.Role))
		row(false, "Preferred role", roleLabel(s.PreferredRole))
		row(false, "Mirror status", modeLabel(s.Mode))
	}
	b.info("Status")
	if srv := serverOf(s.Instance); srv.alive {
		row(false, "PID", strconv.Itoa(srv.pid))
	} else {
		row(true, "PID", "Not found")
	}
	if s.Status == topology.StatusUp {
		row(false, "Configuration reports status as", "Up")
	} else {
		row(true, "Configuration reports status as", "Down")
	}
	status, bad := databaseStatus(s)
	name := "Database status"
	if s.Role == topology.RoleMirror {
		name = "Segment status"
	}
	row(bad, name, status)
}

func roleLabel(role byte) string {
	if role == topology.RolePrimary {
		return "Primary"
	}
	return "Mirror"
}

func modeLabel(mode byte) string {
	if mode == topology.ModeSynced {
		return "Synchronized"
	}
	return "Not In Sync"
}
