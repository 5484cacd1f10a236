package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/trunkline-db/trunkline/instance"
	"github.com/trunkline-db/trunkline/topology"
)

// Mode is how a cluster is stopped.
type Mode string

// The modes, as PostgreSQL's and gpstop's.
const (
	Smart     Mode = "smart"     // only when no session is open
	Fast      Mode = "fast"      // sessions are ended, transactions rolled back
	Immediate Mode = "immediate" // as a crash; recovery at the next start
)

// DefaultStopTimeout is gpstop's.
const DefaultStopTimeout = 120 * time.Second

// StopOptions say how to stop and what.
type StopOptions struct {
	Mode            Mode          // default Fast
	CoordinatorOnly bool          // gpstop -m
	KeepStandby     bool          // gpstop -y
	Timeout         time.Duration // for each instance; default [DefaultStopTimeout]
	Progress        func(string)  // told of each instance that was stopped
}

// ErrNotRunning is returned by [Cluster.Stop] when nothing runs that was to be
// stopped.
var ErrNotRunning = errors.New("the cluster is not running")

// SessionsError is returned by a smart [Cluster.Stop] when sessions are open.
// Nothing was stopped.
type SessionsError struct{ Sessions int }

func (e *SessionsError) Error() string {
	return fmt.Sprintf("%d session(s) are open: wait for them to end, or stop with mode fast", e.Sessions)
}

// Stop stops the cluster: first the coordinator, then the others side by
// side. No instance is started again by its neighbour from the first moment
// on. It returns when all processes are gone.
func (c *Cluster) Stop(ctx context.Context, o StopOptions) error {
	if o.Mode == "" {
		o.Mode = Fast
	}
	if o.Mode != Smart && o.Mode != Fast && o.Mode != Immediate {
		return fmt.Errorf("mode %q is none of smart, fast, immediate", o.Mode)
	}
	if o.Timeout == 0 {
		o.Timeout = DefaultStopTimeout
	}
	progress := serialized(o.Progress)
	if o.Mode == Smart {
		if st, err := instance.ReadStatus(ctx, data(c.Coordinator())); err == nil && st.Sessions > 0 {
			return &SessionsError{st.Sessions}
		}
	}
	var first, rest []topology.Instance
	running := false
	for _, inst := range c.instances {
		if !inst.IsCoordinator() && (o.CoordinatorOnly || (o.KeepStandby && inst.IsStandby())) {
			continue
		}
		if _, up, err := instance.Pid(data(inst)); err != nil {
			return err
		} else if up || len(instance.Leftovers(data(inst))) > 0 {
			running = true
		}
		if inst.IsCoordinator() {
			first = append(first, inst)
		} else {
			rest = append(rest, inst)
		}
	}
	for _, inst := range append(first, rest...) {
		if err := instance.SetWanted(data(inst), false); err != nil {
			return err
		}
	}
	if !running {
		return ErrNotRunning
	}
	// Without the coordinator nobody works on the segments, so a smart stop
	// is over with it.
	groups := [][]topology.Instance{first, rest}
	if o.Mode == Immediate {
		groups = [][]topology.Instance{append(first, rest...)}
	}
	mode := o.Mode
	for _, group := range groups {
		var g errgroup.Group
		for _, inst := range group {
			g.Go(func() error {
				if err := stopInstance(ctx, inst, mode, o.Timeout); err != nil {
					return err
				}
				progress(label(inst) + ": stopped")
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
		if mode == Smart {
			mode = Fast
		}
	}
	return nil
}

// stopInstance stops one instance and what a dead one left.
func stopInstance(ctx context.Context, inst topology.Instance, mode Mode, limit time.Duration) error {
	dir := data(inst)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	sig := map[Mode]syscall.Signal{Smart: syscall.SIGTERM, Fast: syscall.SIGINT, Immediate: syscall.SIGQUIT}[mode]
	signalled := 0
	for {
		pid, running, err := instance.Pid(dir)
		if err != nil {
			return err
		}
		if !running {
			return instance.KillLeftovers(ctx, dir)
		}
		if pid != 0 && pid != signalled {
			if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("stop %v (pid %d): %w", inst, pid, err)
			}
			signalled = pid
		}
		if !pause(ctx, pollEvery) {
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return fmt.Errorf("%v (pid %d) does not end within %v in mode %s; try mode immediate", inst, pid, limit, mode)
			}
			return ctx.Err()
		}
	}
}

// kill ends everything of the cluster at once.
func (c *Cluster) kill(ctx context.Context) error {
	var errs []error
	for _, inst := range c.instances {
		if _, err := os.Stat(inst.Datadir); err == nil {
			errs = append(errs, instance.SetWanted(data(inst), false))
		}
	}
	var g errgroup.Group
	for _, inst := range c.instances {
		g.Go(func() error {
			// An instance that does not end by itself is a leftover.
			_ = stopInstance(ctx, inst, Immediate, 15*time.Second)
			return instance.KillLeftovers(ctx, data(inst))
		})
	}
	return errors.Join(append(errs, g.Wait(), c.removeProxySockets())...)
}

// removeProxySockets removes the sockets that killed proxies left in /tmp.
func (c *Cluster) removeProxySockets() error {
	var errs []error
	for _, inst := range c.instances {
		socks, _ := filepath.Glob(fmt.Sprintf("/tmp/.s.PGSQL.ic_proxy.%d.*", inst.Port))
		for _, s := range socks {
			if err := os.Remove(s); err != nil && !errors.Is(err, os.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// Destroy ends what still runs and removes the cluster's files: nothing is
// asked. Files that do not belong to the cluster are left, and then its
// directory too.
func (c *Cluster) Destroy(ctx context.Context) error {
	for _, inst := range c.instances {
		if !strings.HasPrefix(inst.Datadir, c.dir+string(filepath.Separator)) {
			return fmt.Errorf("%v has its data in %s, not below %s: not removed", inst, inst.Datadir, c.dir)
		}
	}
	if err := c.kill(ctx); err != nil {
		return err
	}
	origin, _ := os.ReadFile(filepath.Join(c.dir, originFile))
	var errs []error
	for _, inst := range c.instances {
		errs = append(errs, os.RemoveAll(inst.Datadir))
		_ = os.Remove(filepath.Dir(inst.Datadir)) // when it was the last there
	}
	// The list goes last: until then the directory can be destroyed again.
	for _, name := range []string{"bin", "env.sh", instance.PostgresLink, originFile, instance.ConfigurationFile} {
		errs = append(errs, os.RemoveAll(filepath.Join(c.dir, name)))
	}
	if link := strings.TrimSpace(string(origin)); link != "" {
		if real, err := filepath.EvalSymlinks(link); err == nil && real == c.dir && link != c.dir {
			errs = append(errs, os.Remove(link))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := os.Remove(c.dir); err != nil {
		return fmt.Errorf("the cluster is removed, but its directory stays: %w", err)
	}
	_ = os.Remove(awayDir) // when it was the last there
	return nil
}
