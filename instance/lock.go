package instance

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trunkline-db/trunkline/datadir"
)

// ErrRunning is returned by [Run] when another process runs the instance.
var ErrRunning = errors.New("the instance is already running")

// ErrUnwanted is returned by [Run] when the instance was to be started again
// after a crash but has been stopped meanwhile.
var ErrUnwanted = errors.New("the instance is not meant to run")

// lockPatience is how long a starting instance retries a lock that is held:
// watchers hold it for microseconds when they look whether it is free.
const lockPatience = 300 * time.Millisecond

// lock is the held lock on instance.pid.
type lock struct{ f *os.File }

// acquire locks the data directory's instance.pid and writes the pid of this
// process into it. It returns an error matching ErrRunning when another
// process holds it.
func acquire(dir datadir.Dir) (*lock, error) {
	if err := makePrivate(dir); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(dir.InstanceLock(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := giveToOwner(dir, f.Name()); err != nil {
		_ = f.Close()
		return nil, err
	}
	deadline := time.Now().Add(lockPatience)
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(deadline) {
			pid := readPid(f)
			_ = f.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				return nil, fmt.Errorf("%s: %w (pid %d)", dir, ErrRunning, pid)
			}
			return nil, fmt.Errorf("lock %s: %w", dir.InstanceLock(), err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err = f.Truncate(0); err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("write %s: %w", dir.InstanceLock(), err)
	}
	return &lock{f}, nil
}

// lost reports whether the lock file is no longer the one at its path: the
// data directory was removed under the running instance.
func (l *lock) lost(dir datadir.Dir) bool {
	mine, err := l.f.Stat()
	if err != nil {
		return true
	}
	there, err := os.Stat(dir.InstanceLock())
	return errors.Is(err, os.ErrNotExist) || (err == nil && !os.SameFile(mine, there))
}

// release empties the file, so that nobody signals a pid of the past, and
// lets go of the lock. The file stays: removing it would race with a starter.
func (l *lock) release() {
	_ = l.f.Truncate(0)
	_ = l.f.Close()
}

func readPid(f *os.File) int {
	b := make([]byte, 32)
	n, _ := f.ReadAt(b, 0)
	pid, _ := strconv.Atoi(strings.TrimSpace(string(b[:n])))
	return pid
}

// Pid tells whether a process runs the instance with this data directory,
// and its pid. A process that took the lock an instant ago may still show as
// pid 0.
func Pid(dir datadir.Dir) (pid int, running bool, err error) {
	f, err := os.Open(dir.InstanceLock())
	if errors.Is(err, os.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	defer f.Close()
	switch err = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); {
	case err == nil:
		return 0, false, nil // closing the file lets go
	case errors.Is(err, unix.EWOULDBLOCK):
		for i := 0; ; i++ {
			if pid = readPid(f); pid != 0 || i == 10 {
				return pid, true, nil
			}
			time.Sleep(time.Millisecond)
		}
	default:
		return 0, false, fmt.Errorf("lock %s: %w", dir.InstanceLock(), err)
	}
}

// runMarker is the file that exists while the instance is meant to run.
func runMarker(dir datadir.Dir) string { return filepath.Join(dir.Private(), "run") }

// SetWanted records whether the instance is meant to run. Only a wanted
// instance is started again by its neighbour when it dies.
func SetWanted(dir datadir.Dir, wanted bool) error {
	if !wanted {
		err := os.Remove(runMarker(dir))
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	}
	if err := makePrivate(dir); err != nil {
		return err
	}
	return writeFile(runMarker(dir), nil, 0o600, dir)
}

// Wanted reports whether the instance is meant to run.
func Wanted(dir datadir.Dir) bool {
	_, err := os.Stat(runMarker(dir))
	return err == nil
}
