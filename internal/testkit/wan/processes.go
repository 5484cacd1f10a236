package wan

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// killWait bounds the wait for killed processes to be gone.
const killWait = 5 * time.Second

// killAll kills the processes that are in the host's namespace, children of
// children and daemons included, until there are none. This process is spared.
func (h *Host) killAll() error {
	own, err := namespaceID(h.ns)
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(killWait); ; time.Sleep(2 * time.Millisecond) {
		found, err := killNamespace(own)
		if found == 0 || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("wan: %d processes in %s did not end within %v of being killed", found, h.name, killWait)
		}
	}
}

func namespaceID(ns *os.File) (string, error) {
	id, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(ns.Fd())))
	if err != nil {
		return "", fmt.Errorf("wan: the host's network namespace: %w", err)
	}
	return id, nil
}

// killNamespace sends SIGKILL to each process in the namespace and returns
// how many there were.
func killNamespace(id string) (int, error) {
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return 0, fmt.Errorf("wan: processes in the namespace: %w", err)
	}
	found := 0
	for _, p := range procs {
		pid, err := strconv.Atoi(p.Name())
		if err != nil || pid == os.Getpid() || !inNamespace(pid, id) {
			continue
		}
		found++
		if err := killMember(pid, id); err != nil && !errors.Is(err, unix.ESRCH) {
			return found, fmt.Errorf("wan: kill process %d in the namespace: %w", pid, err)
		}
	}
	return found, nil
}

// killMember kills a process if it is in the namespace. The descriptor makes
// sure that the pid checked is the one killed, and not given to somebody else
// in between.
func killMember(pid int, id string) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if !inNamespace(pid, id) {
		return nil
	}
	return unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
}

// inNamespace is false for a process that is gone, or a zombie.
func inNamespace(pid int, id string) bool {
	link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
	return err == nil && link == id
}
