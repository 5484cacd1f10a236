package wan

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// ownNamespace is the network namespace of the calling thread. /proc/self/ns
// would be that of the process's first thread.
const ownNamespace = "/proc/thread-self/ns/net"

// onThread runs fn on an OS thread of its own goroutine, which is inside the
// namespace that enter puts it into. enter gets the thread's present one. The
// thread goes back to its namespace afterwards; where that fails, it is given up.
//
// The process's first thread is avoided: /proc/self and /proc/net show what it
// sees, to everybody.
func onThread(enter func() error, fn func() error) error {
	var err error
	returned := false
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			// While this goroutine holds the first thread, another one is not on it.
			err, returned = onThread(enter, fn), true
			runtime.UnlockOSThread()
			return
		}
		home, e := os.Open(ownNamespace)
		if e != nil {
			err, returned = fmt.Errorf("wan: the thread's network namespace: %w", e), true
			runtime.UnlockOSThread()
			return
		}
		defer home.Close()
		defer func() {
			if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
				runtime.UnlockOSThread()
			}
		}()
		if err = enter(); err == nil {
			err = fn()
		}
		returned = true
	}()
	<-done
	if !returned {
		runtime.Goexit() // fn did, as t.FailNow does: so does its caller
	}
	return err
}

// newNamespace makes a network namespace, runs setup inside it, and returns a
// descriptor that holds it.
func newNamespace(setup func() error) (*os.File, error) {
	var ns *os.File
	err := onThread(
		func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("wan: no new network namespace (this needs root, CAP_SYS_ADMIN): %w", err)
			}
			return nil
		},
		func() (err error) {
			if ns, err = os.Open(ownNamespace); err != nil {
				return fmt.Errorf("wan: the new network namespace: %w", err)
			}
			return setup()
		})
	if err != nil && ns != nil {
		err = errors.Join(err, ns.Close())
	}
	return ns, err
}

func enterNamespace(ns *os.File) error {
	conn, err := ns.SyscallConn()
	if err != nil {
		return fmt.Errorf("wan: the host's network namespace: %w", err)
	}
	var setErr error
	if err := conn.Control(func(fd uintptr) { setErr = unix.Setns(int(fd), unix.CLONE_NEWNET) }); err != nil {
		return fmt.Errorf("wan: the host's network namespace: %w", err)
	}
	if setErr != nil {
		return fmt.Errorf("wan: entering the host's network namespace: %w", setErr)
	}
	return nil
}
