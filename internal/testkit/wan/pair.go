package wan

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"syscall"
	"time"
)

// serverGrace is how long a server of a Pair may take to end on SIGTERM.
const serverGrace = 3 * time.Second

// Pair is a server command in one host and a client command in another.
// Stdout and Stderr of both are the caller's; a Stderr that is nil is kept for
// the error's text.
type Pair struct {
	ServerHost, ClientHost *Host
	Server, Client         *exec.Cmd
	// Ready returns when the client may start, as in
	// func(ctx) error { return host.WaitListening(ctx, port) }. nil: at once.
	Ready func(context.Context) error
}

// Run starts the server, waits until it is ready, runs the client to its end
// and ends the server (SIGTERM, after 3 s SIGKILL). It returns how long the
// client took. When ctx ends, both are killed and its cause is part of the error.
func (p Pair) Run(ctx context.Context) (time.Duration, error) {
	server, err := startIn(p.ServerHost, p.Server)
	if err != nil {
		return 0, err
	}
	took, err := p.runClient(ctx, server)
	select {
	case <-server.ended: // by itself; whether it should have is in its exit status
		return took, errors.Join(err, server.failure())
	default:
	}
	_ = p.Server.Process.Signal(syscall.SIGTERM) // it may end at this moment
	select {
	case <-server.ended:
	case <-ctx.Done():
	case <-time.After(serverGrace):
	}
	server.kill()
	if err != nil {
		err = errors.Join(err, server.said())
	}
	return took, err
}

func (p Pair) runClient(ctx context.Context, server *command) (time.Duration, error) {
	if p.Ready != nil {
		ready, cancel := context.WithCancelCause(ctx)
		go func() {
			select {
			case <-server.ended:
				cancel(errors.New("the server ended"))
			case <-ready.Done():
			}
		}()
		err := p.Ready(ready)
		cancel(nil)
		if err != nil {
			return 0, err
		}
	}
	start := time.Now()
	client, err := startIn(p.ClientHost, p.Client)
	if err != nil {
		return 0, err
	}
	select {
	case <-client.ended:
		return time.Since(start), client.failure()
	case <-ctx.Done():
		client.kill()
		return time.Since(start), errors.Join(fmt.Errorf("wan: %s: %w", client.name, context.Cause(ctx)), client.said())
	}
}

// command is a started process and what came of it.
type command struct {
	*exec.Cmd
	name   string
	stderr *bytes.Buffer // nil when the caller has it
	ended  chan struct{} // closed after err is set
	err    error
}

func startIn(h *Host, cmd *exec.Cmd) (*command, error) {
	c := &command{Cmd: cmd, name: fmt.Sprintf("%s on %s", cmd.Path, h.Name()), ended: make(chan struct{})}
	if cmd.Stderr == nil {
		c.stderr = &bytes.Buffer{}
		cmd.Stderr = c.stderr
	}
	if cmd.WaitDelay == 0 {
		cmd.WaitDelay = serverGrace // children that keep the pipes open must not hold us
	}
	if err := h.Start(cmd); err != nil {
		return nil, fmt.Errorf("wan: start %s: %w", c.name, err)
	}
	go func() {
		c.err = cmd.Wait()
		close(c.ended)
	}()
	return c, nil
}

func (c *command) kill() {
	_ = c.Process.Kill() // it may have ended
	<-c.ended
}

// failure is nil after a good end. Only after ended is closed.
func (c *command) failure() error {
	if c.err == nil {
		return nil
	}
	return errors.Join(fmt.Errorf("wan: %s: %w", c.name, c.err), c.said())
}

// said is the end of what it wrote to stderr, as an error; nil when nothing.
// Only after ended is closed.
func (c *command) said() error {
	const most = 2000
	if c.stderr == nil || c.stderr.Len() == 0 {
		return nil
	}
	text := bytes.TrimSpace(c.stderr.Bytes())
	return fmt.Errorf("stderr of %s: %s", c.name, text[max(len(text)-most, 0):])
}
