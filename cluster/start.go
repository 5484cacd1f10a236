package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/trunkline-db/trunkline/instance"
	"github.com/trunkline-db/trunkline/topology"
)

const (
	// DefaultStartTimeout is gpstart's.
	DefaultStartTimeout = 600 * time.Second
	// syncTimeout is how long a start waits until the standby is in sync.
	// After that the cluster runs without waiting for it.
	syncTimeout = 15 * time.Second
	pollEvery   = 20 * time.Millisecond
)

// StartOptions say what to start.
type StartOptions struct {
	CoordinatorOnly bool          // gpstart -m
	NoStandby       bool          // gpstart -y
	Timeout         time.Duration // for each instance; default [DefaultStartTimeout]
	Progress        func(string)  // told of each instance that was started
}

// StartError tells which instances did not start, and why. The ones that this
// start had started are stopped again.
type StartError struct {
	Failed  []topology.Instance
	Reasons []error // of Failed, in the same order
}

func (e *StartError) Error() string {
	s := "the cluster did not start:"
	for k, inst := range e.Failed {
		s += fmt.Sprintf("\n%v: %v", inst, e.Reasons[k])
	}
	return s
}

// Unwrap returns the reasons.
func (e *StartError) Unwrap() []error { return e.Reasons }

// Start starts the instances that do not run and waits until all serve: first
// the segments and the standby, then the coordinator. Starting a cluster that
// runs does nothing; what a crash left behind is cleared. An error about
// instances is a *StartError.
func (c *Cluster) Start(ctx context.Context, o StartOptions) error {
	if o.Timeout == 0 {
		o.Timeout = DefaultStartTimeout
	}
	progress := serialized(o.Progress)
	var first, last []topology.Instance
	standby := false
	for _, inst := range c.instances {
		switch {
		case inst.Status == topology.StatusDown:
		case inst.IsCoordinator():
			last = append(last, inst)
		case o.CoordinatorOnly || (o.NoStandby && inst.IsStandby()):
		default:
			standby = standby || inst.IsStandby()
			first = append(first, inst)
		}
	}
	var started []topology.Instance
	for _, group := range [][]topology.Instance{first, last} {
		mine, err := c.startGroup(ctx, group, o.Timeout, progress)
		started = append(started, mine...)
		if err != nil {
			sctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
			defer cancel()
			for _, inst := range started {
				err = errors.Join(err, instance.SetWanted(data(inst), false))
			}
			for _, inst := range started {
				err = errors.Join(err, stopInstance(sctx, inst, Fast, 30*time.Second))
			}
			return err
		}
	}
	if standby {
		c.awaitSync(ctx, progress)
	}
	return ctx.Err()
}

// startGroup starts instances side by side and returns those that did not run
// before.
func (c *Cluster) startGroup(ctx context.Context, group []topology.Instance, limit time.Duration, progress func(string)) ([]topology.Instance, error) {
	var mu sync.Mutex
	var started []topology.Instance
	var fails StartError
	var g errgroup.Group
	for _, inst := range group {
		g.Go(func() error {
			ictx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not ready after %v", limit))
			defer cancel()
			spawned, err := c.startInstance(ictx, inst)
			mu.Lock()
			defer mu.Unlock()
			if spawned {
				started = append(started, inst)
			}
			if err != nil {
				fails.Failed = append(fails.Failed, inst)
				fails.Reasons = append(fails.Reasons, err)
			} else if spawned {
				progress(label(inst) + ": started")
			} else {
				progress(label(inst) + ": runs already")
			}
			return nil
		})
	}
	_ = g.Wait()
	switch {
	case ctx.Err() != nil:
		return started, context.Cause(ctx)
	case len(fails.Failed) > 0:
		return started, &fails
	}
	return started, nil
}

// startInstance makes sure that the instance runs and serves. spawned tells
// that it had to be started.
func (c *Cluster) startInstance(ctx context.Context, inst topology.Instance) (spawned bool, err error) {
	dir := data(inst)
	for {
		_, running, err := instance.Pid(dir)
		if err != nil {
			return spawned, err
		}
		if !running {
			if err := instance.SetWanted(dir, true); err != nil {
				return spawned, err
			}
			p, err := c.spawn(inst)
			if err != nil {
				return spawned, err
			}
			spawned = true
			err = p.Ready(ctx)
			if errors.Is(err, instance.ErrRunning) {
				continue // a neighbour was faster
			}
			return spawned, err
		}
		st, err := instance.ReadStatus(ctx, dir)
		if err == nil && st.State == instance.Ready {
			return spawned, instance.SetWanted(dir, true)
		}
		// It is on its way up, or down and will be started then.
		if !pause(ctx, pollEvery) {
			return spawned, context.Cause(ctx)
		}
	}
}

// awaitSync waits until commits wait for the standby, for a while.
func (c *Cluster) awaitSync(ctx context.Context, progress func(string)) {
	ctx, cancel := context.WithTimeout(ctx, syncTimeout)
	defer cancel()
	for {
		st, err := instance.ReadStatus(ctx, data(c.Coordinator()))
		if err == nil && st.SyncStandby != "" {
			return
		}
		if !pause(ctx, pollEvery) {
			progress("the standby is not in sync yet; the cluster does not wait for it until it is")
			return
		}
	}
}

// pause waits for d and reports whether ctx is still alive.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// serialized makes a progress function that may be nil safe for concurrent
// use.
func serialized(f func(string)) func(string) {
	if f == nil {
		return func(string) {}
	}
	var mu sync.Mutex
	return func(s string) {
		mu.Lock()
		defer mu.Unlock()
		f(s)
	}
}
