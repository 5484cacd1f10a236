package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/trunkline-db/trunkline/cluster"
	"github.com/trunkline-db/trunkline/topology"
)

var _ = register(newGPStartCommand)

type gpstart struct {
	*gpTool
	flags               gpFlags
	coordOnly, noStdby  bool
	timeout             int
	sys                 system
	segs, skipped, list []topology.Instance
}

func newGPStartCommand() *cobra.Command {
	var g gpstart
	cmd := newGPCommand("gpstart", "Start the system",
		`Starts the segment instances, the standby and the coordinator, and waits until
all serve. With -m only the coordinator is started, for maintenance: connect
with PGOPTIONS='-c gp_role=utility'.

When a segment does not start, what was started is stopped again.

Exit status: 0 done, 1 not all instances were started, 2 failed or wrong
options, 4 the answer was no.`)
	g.flags.add(cmd, 64)
	f := cmd.Flags()
	f.BoolVarP(&g.coordOnly, "coordinator_only", "m", false, "Start the coordinator only.")
	f.BoolVarP(&g.noStdby, "no-standby", "y", false, "Do not start the standby.")
	f.IntVarP(&g.timeout, "timeout", "t", int(cluster.DefaultStartTimeout/time.Second), "How many `seconds` an instance may take.")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		g.gpTool = newGPTool(cmd, g.flags)
		return g.run(cmd, g.work)
	}
	return cmd
}

func (g *gpstart) work(ctx context.Context) (int, error) {
	if g.flags.parallel < 1 || g.flags.parallel > 128 {
		return 0, argumentError(fmt.Sprintf("Invalid value for parallel degree: %d", g.flags.parallel))
	}
	if g.timeout < 1 {
		return 0, argumentError(fmt.Sprintf("Invalid timeout value: %d", g.timeout))
	}
	if err := g.prepare(ctx); err != nil {
		return 0, err
	}
	if g.coordOnly {
		return g.startCoordinatorOnly(ctx)
	}
	for _, i := range g.skipped {
		g.warn("Skipping startup of segment marked down in configuration: on %s directory %s <<<<<", i.Hostname, i.Datadir)
	}
	if !g.noPrompt {
		g.summarize()
		if err := g.confirm(ctx, "Continue with Greenplum instance startup"); err != nil {
			return 0, err
		}
	}
	return g.start(ctx)
}

func (g *gpstart) prepare(ctx context.Context) error {
	g.info("Gathering information and validating the environment...")
	g.info("Greenplum Binary Version: '%s'", serverVersion)
	var err error
	if g.sys, err = openSystem(g.flags.dataDir); err != nil {
		return err
	}
	status, err := g.sys.Status(ctx)
	if err != nil {
		return err
	}
	coordinator := g.sys.Coordinator()
	if serverOf(coordinator).pidFile {
		g.warn("postmaster.pid file exists on Coordinator, checking if recovery startup required")
		g.info("Commencing recovery startup checks")
		if up := running(status, topology.Instance.IsCoordinator); len(up) > 0 {
			return plainError("Coordinator instance process running")
		}
		g.info("No Coordinator instance process, entering recovery startup mode")
	} else if len(running(status, topology.Instance.IsCoordinator)) > 0 {
		return plainError("Coordinator instance process running")
	}
	g.info("Obtaining Greenplum Coordinator catalog information")
	g.info("Obtaining Segment details from coordinator...")
	g.list = g.sys.Instances()
	for _, i := range segments(g.list) {
		if i.Status == topology.StatusDown {
			g.skipped = append(g.skipped, i)
		} else {
			g.segs = append(g.segs, i)
		}
	}
	return nil
}

func (g *gpstart) options() cluster.StartOptions {
	return cluster.StartOptions{
		CoordinatorOnly: g.coordOnly, NoStandby: g.noStdby, Timeout: time.Duration(g.timeout) * time.Second,
		Progress: func(text string) { g.debug("%s", text) },
	}
}

func (g *gpstart) startCoordinatorOnly(ctx context.Context) (int, error) {
	const stars = "****************************************************************************"
	g.warn(stars)
	g.warn("Coordinator-only start requested. If a standby is configured, this command")
	g.warn("may lead to a split-brain condition and possible unrecoverable data loss.")
	g.warn("Maintenance mode should only be used with direction from Greenplum Support.")
	g.warn(stars)
	if err := g.confirm(ctx, "Continue with coordinator-only startup"); err != nil {
		return 0, err
	}
	g.info("Starting Coordinator instance in admin mode")
	if err := g.sys.Start(ctx, g.options()); err != nil {
		g.critical("Failed to start Coordinator instance in admin mode")
		return 0, err
	}
	g.info("Coordinator Started...")
	return 0, nil
}

func (g *gpstart) summarize() {
	c := g.sys.Coordinator()
	g.info("--------------------------")
	g.info("Coordinator instance parameters")
	g.info("--------------------------")
	g.info("Database                 = template1")
	g.info("Coordinator Port              = %d", c.Port)
	g.info("Coordinator directory         = %s", c.Datadir)
	g.info("Timeout                  = %d seconds", g.timeout)
	switch _, ok := standbyOf(g.list); {
	case ok && g.noStdby:
		g.info("Coordinator standby start     = Off")
	case ok:
		g.info("Coordinator standby start     = On")
	default:
		g.info("Coordinator standby           = Off ")
	}
	g.info("--------------------------------------")
	g.info("Segment instances that will be started")
	g.info("--------------------------------------")
	var b table
	b.info("Host", "Datadir", "Port")
	for _, i := range g.segs {
		b.info(triplet(i)...)
	}
	b.print(g.gpTool)
}

// start starts all; which instances failed is known from the error.
func (g *gpstart) start(ctx context.Context) (int, error) {
	g.info("Commencing parallel segment instance startup, please wait...")
	err := g.sys.Start(ctx, g.options())
	var fails *cluster.StartError
	if err != nil && !errors.As(err, &fails) {
		return 0, err
	}
	g.info("Process results...")
	failed := map[uint16]error{}
	if fails != nil {
		for k, i := range fails.Failed {
			failed[i.Dbid] = fails.Reasons[k]
		}
	}
	bad := 0
	for _, i := range g.segs {
		if failed[i.Dbid] != nil {
			bad++
		}
	}
	g.report(failed, bad)
	coordinator := g.sys.Coordinator()
	standby, hasStandby := standbyOf(g.list)
	switch {
	case bad > 0:
		return 0, plainError("Do not have enough valid segments to start the array.")
	case failed[standby.Dbid] != nil && hasStandby:
		g.warn("Standby Coordinator could not be started: %v", failed[standby.Dbid])
		return 0, plainError("The standby did not start; start without it by -y.")
	case failed[coordinator.Dbid] != nil:
		g.warn("Coordinator could not be started: %v", failed[coordinator.Dbid])
		return codeFailed, nil
	}
	g.info("Starting Coordinator instance %s directory %s ", coordinator.Hostname, coordinator.Datadir)
	g.info("Command pg_ctl reports Coordinator %s instance active", coordinator.Hostname)
	switch {
	case !hasStandby:
		g.info("No standby coordinator configured.  skipping...")
	case g.noStdby:
		g.info("Skipping startup of the standby coordinator")
	default:
		g.info("Starting standby coordinator")
		g.info("Successfully started standby coordinator on %s", standby.Hostname)
	}
	if len(g.skipped) > 0 {
		g.warn("Number of segments not attempted to start: %d", len(g.skipped))
		g.info("Check status of database with gpstate utility")
	} else {
		g.info("Database successfully started")
	}
	return 0, nil
}

func (g *gpstart) report(failed map[uint16]error, bad int) {
	if bad > 0 {
		g.info(dashes)
		for _, i := range g.segs {
			if err := failed[i.Dbid]; err != nil {
				g.info("DBID:%d  FAILED  host:'%s' datadir:'%s' with reason:'%v'", i.Dbid, i.Hostname, i.Datadir, err)
			}
		}
		g.info(dashes)
	}
	started := len(g.segs) - bad
	var b table
	b.separate()
	b.info("Successful segment starts", "= "+strconv.Itoa(started))
	b.infoOrWarn(bad > 0, "Failed segment starts", "= "+strconv.Itoa(bad))
	b.infoOrWarn(len(g.skipped) > 0, "Skipped segment starts (segments are marked down in configuration)",
		"= "+strconv.Itoa(len(g.skipped)))
	b.separate()
	b.print(g.gpTool)
	other, flag := "", ""
	if len(g.skipped) > 0 {
		other = fmt.Sprintf(", skipped %d other segments", len(g.skipped))
	}
	if bad > 0 {
		flag = "<<<<<<<<"
	}
	g.info("Successfully started %d of %d segment instances%s %s", started, len(g.segs), other, flag)
	g.info(dashes)
	if bad > 0 {
		g.warn("Segment instance startup failures reported")
		g.warn("Failed start %d of %d segment instances %s", bad, len(g.segs), flag)
		g.info(dashes)
	}
	if len(g.skipped) > 0 {
		const stars = "****************************************************************************"
		g.warn(stars)
		g.warn("There are %d segment(s) marked down in the database", len(g.skipped))
		g.warn("To recover from this current state, review usage of the gprecoverseg")
		g.warn("management utility which will recover failed segment instance databases.")
		g.warn(stars)
	}
}
