package cli

import (
	"context"
	"strconv"

	"github.com/trunkline-db/trunkline/cluster"
	"github.com/trunkline-db/trunkline/topology"
)

// ports is -p.
func (g *gpstate) ports(context.Context) (int, error) {
	c := g.sys.Coordinator()
	g.info("-Coordinator segment instance  %s  port = %d", c.Datadir, c.Port)
	g.info("-Segment instance port assignments")
	g.info("----------------------------------")
	g.printTriplets("Host")
	return 0, nil
}

func (g *gpstate) printTriplets(first string) {
	var b table
	b.info(first, "Datadir", "Port")
	for _, i := range segments(g.sys.Instances()) {
		b.info(triplet(i)...)
	}
	b.print(g.gpTool)
}

// standby is -f.
func (g *gpstate) standby(ctx context.Context) (int, error) {
	s, ok := standbyOf(g.sys.Instances())
	if !ok {
		g.info("Standby coordinator instance not configured")
	} else {
		srv := serverOf(s)
		g.info("Standby coordinator details")
		g.info("----------------------")
		var b table
		b.info("Standby address", "= "+s.Address)
		b.info("Standby data directory", "= "+s.Datadir)
		b.info("Standby port", "= "+strconv.Itoa(s.Port))
		switch {
		case srv.pid == 0:
			b.infoOrWarn(true, "Standby PID", "= 0")
			b.infoOrWarn(true, "Standby status", "= Standby process not running")
		case !srv.alive:
			b.infoOrWarn(true, "Standby PID", "= "+strconv.Itoa(srv.pid), "no such process")
			b.infoOrWarn(true, "Standby status", "= Status could not be determined")
		default:
			b.info("Standby PID", "= "+strconv.Itoa(srv.pid))
			b.info("Standby status", "= Standby host passive")
		}
		b.print(g.gpTool)
	}
	rows, err := coordinatorSQL(ctx, g.sys.Coordinator(),
		"SELECT state, sync_state, sent_lsn, flush_lsn, replay_lsn FROM pg_stat_replication")
	if err != nil {
		return 0, err
	}
	g.info(line61)
	g.info("-pg_stat_replication")
	g.info(line61)
	switch len(rows) {
	case 0:
		g.info("No entries found.")
	case 1:
		for k, name := range []string{"WAL Sender State", "Sync state", "Sent Location", "Flush Location", "Replay Location"} {
			g.info("-%s: %s", name, rows[0][k])
		}
	default:
		g.warn("pg_stat_replication shows more than 1 row.")
	}
	g.info(line61)
	return 0, nil
}

// mirrors is -m.
func (g *gpstate) mirrors(context.Context) (int, error) {
	if !g.hasMirrors() {
		g.warn(line61)
		g.warn("Mirror not used")
		g.warn(line61)
		return 0, nil
	}
	code, failed := 0, 0
	var b table
	b.info("Mirror", "Datadir", "Port", "Status", "Data Status")
	for _, s := range g.made(topology.RoleMirror) {
		status, data, bad := "Passive", modeLabel(s.Mode), false
		switch {
		case s.Role == topology.RolePrimary:
			status = "Acting as Primary"
		case s.Status == topology.StatusDown:
			status, data, bad, code = "Failed", "", true, codeFailed
			failed++
		}
		b.infoOrWarn(bad, append(triplet(s.Instance), status, data)...)
	}
	g.mirrorHeader()
	b.print(g.gpTool)
	g.info(line61)
	if failed > 0 {
		g.warn("%d segment(s) configured as mirror(s) have failed", failed)
	}
	return code, nil
}

// mirrorHeader calls the mirroring a group when the mirrors of a host's
// primaries are all on one other host.
func (g *gpstate) mirrorHeader() {
	g.info(line61)
	g.info("-Current GPDB mirror list and status")
	kind := "Group"
	at := map[string]string{}
	for _, p := range g.made(topology.RolePrimary) {
		if m, ok := g.mirrorOf(p.Content); ok {
			if host, seen := at[p.Hostname]; seen && host != m.Hostname {
				kind = "Spread"
			}
			at[p.Hostname] = m.Hostname
		}
	}
	g.info("-Type = %s", kind)
	g.info(line61)
}

func (g *gpstate) mirrorOf(content int16) (cluster.InstanceStatus, bool) {
	for _, s := range g.made(topology.RoleMirror) {
		if s.Content == content {
			return s, true
		}
	}
	return cluster.InstanceStatus{}, false
}

// mapping is -c.
func (g *gpstate) mapping(context.Context) (int, error) {
	if !g.hasMirrors() {
		g.info(line61)
		g.info("-Primary list [Mirror not used]")
		g.info(line61)
		g.printTriplets("Primary")
		g.info(line61)
		return 0, nil
	}
	g.mirrorHeader()
	var b table
	b.info("Status", "Data State", "Primary", "Datadir", "Port", "Mirror", "Datadir", "Port")
	for _, p := range g.made(topology.RolePrimary) {
		m, ok := g.mirrorOf(p.Content)
		if !ok {
			continue
		}
		acting, status, other := p, "Primary Active, Mirror ", m
		if p.Role == topology.RoleMirror {
			acting, status, other = m, "Mirror Active, Primary ", p
		}
		if other.Status == topology.StatusUp {
			status += "Available"
		} else {
			status += "Failed"
		}
		cells := append([]string{status, modeLabel(acting.Mode)}, triplet(p.Instance)...)
		b.infoOrWarn(acting.Mode != topology.ModeSynced, append(cells, triplet(m.Instance)...)...)
	}
	b.print(g.gpTool)
	g.info(line61)
	return 0, nil
}

// problems is -e.
func (g *gpstate) problems(context.Context) (int, error) {
	if !g.hasMirrors() {
		g.info("Physical mirroring is not configured")
		return codeFailed, nil
	}
	g.info("Gathering data from segments...")
	g.info(dashes)
	g.info("Segment Mirroring Status Report")
	code := 0
	block := func(title string, header []string, rows [][]string) {
		if len(rows) == 0 {
			return
		}
		g.info(dashes)
		g.info("%s", title)
		var b table
		b.info(header...)
		for _, r := range rows {
			b.info(r...)
		}
		b.print(g.gpTool)
		code = codeFailed
	}
	var switched, unsynced, down [][]string
	for _, s := range g.status {
		if !isSegment(s.Instance) {
			continue
		}
		port := strconv.Itoa(s.Port)
		if s.Role == topology.RolePrimary {
			pair := []string{s.Address, port}
			for _, o := range g.status {
				if o.Content == s.Content && o.Role == topology.RoleMirror {
					pair = append(pair, o.Address, strconv.Itoa(o.Port))
				}
			}
			if s.PreferredRole == topology.RoleMirror {
				switched = append(switched, pair)
			}
			if s.Mode != topology.ModeSynced {
				unsynced = append(unsynced, pair)
			}
		}
		if status, bad := databaseStatus(s); bad {
			config := "Up"
			if s.Status == topology.StatusDown {
				config = "Down"
			}
			down = append(down, []string{s.Address, port, config, status})
		}
	}
	pairs := []string{"Current Primary", "Port", "Mirror", "Port"}
	block("Segments with Primary and Mirror Roles Switched", pairs, switched)
	block("Unsynchronized Segment Pairs", pairs, unsynced)
	block("Downed Segments (may include segments where status could not be retrieved)",
		[]string{"Segment", "Port", "Config status", "Status"}, down)
	g.warnIfDown()
	if code == 0 {
		g.info(dashes)
		g.info("All segments are running normally")
	}
	return code, nil
}

// versions is -i. All instances of a cluster run its one program.
func (g *gpstate) versions(context.Context) (int, error) {
	g.info("Loading version information")
	var b table
	b.info("Host", "Datadir", "Port", "Version")
	for _, s := range g.status {
		if s.Running {
			b.info(append(triplet(s.Instance), serverVersion)...)
		} else {
			b.infoOrWarn(true, append(triplet(s.Instance), "unable to retrieve version")...)
		}
	}
	b.print(g.gpTool)
	if b.hasWarnings() {
		g.warn("Unable to retrieve version data from all segments.  Review table above for details.")
	} else {
		g.info("All segments are running the same software version")
	}
	return 0, nil
}

// quick is -Q.
func (g *gpstate) quick(context.Context) (int, error) {
	const line = "----------------------------------------------------------"
	g.info("-Quick Greenplum database status from Coordinator instance only")
	g.info(line)
	var down table
	up := 0
	down.info("Down Segment", "Datadir", "Port")
	for _, i := range segments(g.sys.Instances()) {
		if i.Status == topology.StatusUp {
			up++
		} else {
			down.info(triplet(i)...)
		}
	}
	g.info("# of up segments, from configuration table     = %d", up)
	code := 0
	if n := len(down.rows) - 1; n > 0 {
		g.info("# of down segments, from configuration table   = %d", n)
		down.print(g.gpTool)
		code = codeFailed
	}
	g.info(line)
	return code, nil
}
