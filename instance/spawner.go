package instance

import (
	"errors"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
)

// spawner starts child processes from one OS thread that lives until close.
// The kernel sends a child its parent death signal when the thread that
// created it ends, not the process, and Go ends threads as it likes.
type spawner struct {
	jobs chan func()
	once sync.Once
	done chan struct{}
}

func newSpawner() *spawner {
	s := &spawner{jobs: make(chan func()), done: make(chan struct{})}
	go func() {
		runtime.LockOSThread()
		defer close(s.done)
		for job := range s.jobs {
			job()
		}
		// Still locked, so the thread goes too, unless it is the main one.
	}()
	return s
}

// close ends the goroutine, and with it, as a rule, the thread. The caller has
// ended its children before.
func (s *spawner) close() {
	s.once.Do(func() { close(s.jobs) })
	<-s.done
}

// child is a started process. exited is closed when it was waited for; err
// may be read then.
type child struct {
	pid    int
	exited chan struct{}
	err    error
}

// start starts cmd so that it gets the signal death when the spawner ends.
// It must not be called after close.
func (s *spawner) start(cmd *exec.Cmd, death syscall.Signal) (*child, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = death
	result := make(chan error)
	s.jobs <- func() { result <- cmd.Start() }
	if err := <-result; err != nil {
		return nil, err
	}
	c := &child{pid: cmd.Process.Pid, exited: make(chan struct{})}
	go func() {
		c.err = cmd.Wait()
		close(c.exited)
	}()
	return c, nil
}

// signal sends sig unless the process was waited for already.
func (c *child) signal(sig syscall.Signal) {
	select {
	case <-c.exited:
	default:
		_ = syscall.Kill(c.pid, sig)
	}
}

// reason says how an exited child ended.
func (c *child) reason() string {
	var ee *exec.ExitError
	switch {
	case c.err == nil:
		return "exit status 0"
	case errors.As(c.err, &ee):
		return ee.Error()
	default:
		return c.err.Error()
	}
}
