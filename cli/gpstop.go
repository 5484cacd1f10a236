package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/trunkline-db/trunkline/cluster"
	"github.com/trunkline-db/trunkline/topology"
)

var _ = register(newGPStopCommand)

const line44 = "--------------------------------------------"

// minStopTimeout is the shortest -t, in seconds, as Greenplum's.
const minStopTimeout = 120

type gpstop struct {
	*gpTool
	flags                            gpFlags
	mode                             string
	fast, immediate, smart, force    bool
	restart, coordOnly, keep, reload bool
	timeout                          int

	sys system
}

func newGPStopCommand() *cobra.Command {
	var g gpstop
	cmd := newGPCommand("gpstop", "Stop the system, or make it read its configuration files again",
		`Stops the coordinator, its standby and all segment instances. With -u nothing
is stopped: every instance reads its postgresql.conf again.

Modes of -M: smart (the default) waits until the last session has ended; fast
ends the sessions and rolls their transactions back; immediate stops as a crash
would, and the next start recovers.

Exit status: 0 done, 1 some instances did not reload, 2 failed or wrong options,
4 the answer was no.`)
	g.flags.add(cmd, 64)
	f := cmd.Flags()
	f.StringVarP(&g.mode, "mode", "M", "smart", "How to stop: `smart|fast|immediate`.")
	f.BoolVarP(&g.restart, "restart", "r", false, "Start the system again afterwards.")
	f.BoolVarP(&g.coordOnly, "coordinator_only", "m", false, "Stop the coordinator only.")
	f.BoolVarP(&g.keep, "keep-standby", "y", false, "Leave the standby running.")
	f.BoolVarP(&g.reload, "reload", "u", false, "Read the configuration files again.")
	f.IntVarP(&g.timeout, "timeout", "t", minStopTimeout, "How many `seconds` an instance, or the last session, may take.")
	for _, old := range []struct {
		p           *bool
		name, short string
	}{{&g.fast, "fast", "f"}, {&g.immediate, "immediate", "i"}, {&g.smart, "smart", "s"}, {&g.force, "force", "z"}} {
		f.BoolVarP(old.p, old.name, old.short, false, "Deprecated; use -M.")
		_ = f.MarkHidden(old.name)
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		g.gpTool = newGPTool(cmd, g.flags)
		return g.run(cmd, g.work)
	}
	return cmd
}

func (g *gpstop) checkOptions() error {
	if g.mode != "smart" && (g.fast || g.immediate || g.smart) {
		return argumentError("Can not mix --mode options with older deprecated '-f,-i,-s'")
	}
	switch {
	case g.smart:
		g.mode = "smart"
	case g.immediate:
		g.mode = "immediate"
	case g.fast, g.force:
		g.mode = "fast"
	}
	switch cluster.Mode(g.mode) {
	case cluster.Smart, cluster.Fast, cluster.Immediate:
	default:
		return argumentError(fmt.Sprintf("option -M: invalid choice: '%s' (choose from 'fast', 'immediate', 'smart')", g.mode))
	}
	if g.flags.parallel < 1 || g.flags.parallel > 128 {
		return argumentError(fmt.Sprintf("Invalid value for parallel degree: %d", g.flags.parallel))
	}
	if g.timeout < minStopTimeout {
		return argumentError(fmt.Sprintf("Invalid timeout value.  Must be greater than %d seconds.", minStopTimeout))
	}
	return nil
}

func (g *gpstop) work(ctx context.Context) (int, error) {
	if err := g.checkOptions(); err != nil {
		return 0, err
	}
	g.info("Gathering information and validating the environment...")
	var err error
	if g.sys, err = openSystem(g.flags.dataDir); err != nil {
		return 0, err
	}
	status, err := g.sys.Status(ctx)
	if err != nil {
		return 0, err
	}
	coordinator := g.sys.Coordinator()
	up := running(status, func(i topology.Instance) bool { return i.Dbid == coordinator.Dbid })
	others := running(status, func(i topology.Instance) bool { return i.Dbid != coordinator.Dbid })
	if len(up) == 0 && (len(others) == 0 || g.reload || g.coordOnly) {
		return 0, plainError("postmaster.pid file does not exist.  is Greenplum instance already stopped?")
	}
	g.info("Obtaining Greenplum Coordinator catalog information")
	g.info("Obtaining Segment details from coordinator...")
	g.info("Greenplum Version: '%s'", serverVersion)
	if g.reload {
		return g.reloadAll(ctx)
	}
	if g.coordOnly {
		if err := g.confirm(ctx, "Continue with coordinator-only shutdown"); err != nil {
			return 0, err
		}
		return 0, g.stopCoordinator(ctx)
	}
	if !g.noPrompt {
		pid := 0
		if len(up) > 0 {
			pid = up[0].Pid
		}
		g.summarize(pid)
		if err := g.confirm(ctx, "Continue with Greenplum instance shutdown"); err != nil {
			return 0, err
		}
	}
	if len(up) > 0 {
		if err := g.stopCoordinator(ctx); err != nil {
			return 0, err
		}
	} else {
		g.warn("The coordinator does not run, but other instances do: stopping those")
	}
	failed, err := g.stopRest(ctx)
	if err != nil {
		return 0, err
	}
	if failed {
		return codeError, nil
	}
	if g.restart {
		g.info("Restarting System...")
		if err := g.sys.Start(ctx, cluster.StartOptions{NoStandby: g.keep, Progress: g.progress}); err != nil {
			return 0, fmt.Errorf("the system was stopped, but did not start again: %w", err)
		}
	}
	return 0, nil
}

func (g *gpstop) progress(text string) { g.debug("%s", text) }

// reloadAll is -u. A dot is printed for each second it takes.
func (g *gpstop) reloadAll(ctx context.Context) (int, error) {
	g.info("Signalling all postmaster processes to reload")
	done := make(chan []cluster.ReloadFailure, 1)
	go func() { done <- g.sys.Reload(ctx) }()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	dots := 0
	var failed []cluster.ReloadFailure
wait:
	for {
		select {
		case failed = <-done:
			break wait
		case <-tick.C:
			if dots++; !g.quiet {
				fmt.Fprint(g.out, ".")
			}
		}
	}
	if dots > 0 && !g.quiet {
		fmt.Fprintln(g.out)
	}
	if len(failed) == 0 {
		return 0, nil
	}
	g.info(line44)
	g.info("Some segment postmasters were not reloaded")
	g.info(line44)
	var b table
	b.info("Host", "Datadir", "Port", "Status")
	for _, f := range failed {
		b.info(append(triplet(f.Instance), string(f.Instance.Status))...)
	}
	b.print(g.gpTool)
	g.info(line44)
	for _, f := range failed {
		g.error("%v: %v", f.Instance, f.Err)
	}
	return codeFailed, nil
}

func (g *gpstop) summarize(pid int) {
	c := g.sys.Coordinator()
	g.info(line44)
	g.info("Coordinator instance parameters")
	g.info(line44)
	standby := "Off"
	if _, ok := standbyOf(g.sys.Instances()); ok && !g.keep {
		standby = "On"
	}
	var b table
	b.info("Coordinator Greenplum instance process active PID", "= "+strconv.Itoa(pid))
	b.info("Database", "= template1")
	b.info("Coordinator port", "= "+strconv.Itoa(c.Port))
	b.info("Coordinator directory", "= "+c.Datadir)
	b.info("Shutdown mode", "= "+g.mode)
	b.info("Timeout", "= "+strconv.Itoa(g.timeout))
	b.info("Shutdown Coordinator standby host", "= "+standby)
	b.print(g.gpTool)
	g.info(line44)
	g.info("Segment instances that will be shutdown:")
	g.info(line44)
	b = table{}
	b.info("Host", "Datadir", "Port", "Status")
	for _, i := range segments(g.sys.Instances()) {
		b.info(append(triplet(i), string(i.Status))...)
	}
	b.print(g.gpTool)
}

func (g *gpstop) options() cluster.StopOptions {
	return cluster.StopOptions{
		Mode: cluster.Mode(g.mode), Timeout: time.Duration(g.timeout) * time.Second, Progress: g.progress,
	}
}

// stopCoordinator waits, in smart mode, for the last session to end. An
// interrupt ends the wait, but not a shutdown that has begun.
func (g *gpstop) stopCoordinator(ctx context.Context) error {
	c := g.sys.Coordinator()
	g.info("Commencing Coordinator instance shutdown with mode='%s'", g.mode)
	g.info("Coordinator segment instance directory=%s", c.Datadir)
	o := g.options()
	o.CoordinatorOnly = true
	if g.mode == "smart" {
		g.info("Stopping coordinator segment and waiting for user connections to finish ...")
	}
	end := time.Now().Add(o.Timeout)
	for {
		err := g.sys.Stop(context.WithoutCancel(ctx), o)
		var open *cluster.SessionsError
		switch {
		case err == nil, errors.Is(err, cluster.ErrNotRunning):
			g.info("Attempting forceful termination of any leftover coordinator process")
			return nil
		case !errors.As(err, &open):
			return err
		case time.Now().After(end):
			g.warn("Smart mode failed to shutdown the coordinator.")
			return plainError(fmt.Sprintf("%d user connections are still open after %d seconds; stop with -M fast to end them",
				open.Sessions, g.timeout))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(smartPoll):
		}
	}
}

// smartPoll is how often a smart stop looks for open sessions.
var smartPoll = time.Second

// stopRest stops the standby and the segments and reports whether some did not
// stop.
func (g *gpstop) stopRest(ctx context.Context) (failed bool, err error) {
	ctx = context.WithoutCancel(ctx)
	list := g.sys.Instances()
	segs := segments(list)
	if s, ok := standbyOf(list); !ok {
		g.info("No standby coordinator host configured")
	} else if !g.keep {
		g.info("Stopping coordinator standby host %s mode=%s", s.Hostname, g.mode)
	}
	ids := make([]string, len(segs))
	for k, i := range segs {
		ids[k] = strconv.Itoa(int(i.Dbid))
	}
	g.info("Targeting dbid [%s] for shutdown", strings.Join(ids, ", "))
	g.info("Commencing parallel segment instance shutdown, please wait...")
	g.info("0.00%% of jobs completed")
	o := g.options()
	o.KeepStandby = g.keep
	if o.Mode == cluster.Smart {
		o.Mode = cluster.Fast // nobody is left to wait for
	}
	stopErr := g.sys.Stop(ctx, o)
	if errors.Is(stopErr, cluster.ErrNotRunning) {
		stopErr = nil
	}
	status, err := g.sys.Status(ctx)
	if err != nil {
		return false, errors.Join(stopErr, err)
	}
	left := running(status, isSegment)
	g.info("100.00%% of jobs completed")
	g.report(len(segs), left, stopErr)
	if s, ok := standbyOf(list); ok && !g.keep {
		if len(running(status, topology.Instance.IsStandby)) == 0 {
			g.info("Successfully shutdown standby process on %s", s.Hostname)
		} else {
			g.error("Unable to stop coordinator standby on host: %s", s.Hostname)
			return true, nil
		}
	}
	return len(left) > 0 || stopErr != nil, nil
}

func (g *gpstop) report(total int, left []cluster.InstanceStatus, stopErr error) {
	stopped := total - len(left)
	if len(left) > 0 {
		g.info("------------------------------------------------")
		g.info("Failed Segment Stop Information ")
		g.info("------------------------------------------------")
		for _, s := range left {
			g.info("DBID:%d  FAILED  host:'%s' datadir:'%s' with reason:'%v'", s.Dbid, s.Hostname, s.Datadir, stopErr)
		}
	}
	var b table
	b.separate()
	b.info("Segments stopped successfully", fmt.Sprintf("= %d", stopped))
	b.infoOrWarn(len(left) > 0, "Segments with errors during stop", fmt.Sprintf("= %d", len(left)))
	b.separate()
	b.print(g.gpTool)
	flag := ""
	if len(left) > 0 {
		flag = "<<<<<<<<"
	}
	g.info("Successfully shutdown %d of %d segment instances %s", stopped, total, flag)
	switch {
	case len(left) > 0:
		g.warn("------------------------------------------------")
		g.warn("Segment instance shutdown failures reported")
		g.warn("Failed to shutdown %d of %d segment instances <<<<<", len(left), total)
		g.warn("------------------------------------------------")
	case stopErr != nil:
		g.error("%v", stopErr)
	default:
		g.info("Database successfully shutdown with no errors reported")
	}
}
