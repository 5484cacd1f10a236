package wan

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// alarm wakes one goroutine at a time given in nanoseconds. The runtime's own
// timers may be late by a millisecond when nothing else happens, because that
// is the unit in which it waits for descriptors; a timer that is itself a
// descriptor is on time.
type alarm struct {
	file *os.File
	fd   int // of file; used only by set
}

func newAlarm() (*alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("wan: timer: %w", err)
	}
	return &alarm{file: os.NewFile(uintptr(fd), "timerfd"), fd: fd}, nil
}

// set makes the next wait, or the one under way, return after d, and forgets
// what was set before. It must not run during or after close.
func (a *alarm) set(d time.Duration) error {
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(max(int64(d), 1))}
	return unix.TimerfdSettime(a.fd, 0, &spec, nil)
}

// wait returns an error only after close. buf is 8 bytes of the caller's.
func (a *alarm) wait(buf []byte) error {
	_, err := a.file.Read(buf)
	return err
}

func (a *alarm) close() error { return a.file.Close() }
