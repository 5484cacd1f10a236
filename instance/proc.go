package instance

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/trunkline-db/trunkline/datadir"
)

// alive reports whether the process exists and is not merely waiting to be
// reaped.
func alive(pid int) bool {
	if pid <= 0 {
		return false
	}
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return false
	}
	// pid (comm) state …; comm may hold anything, so look behind its end.
	i := bytes.LastIndexByte(b, ')')
	return i >= 0 && i+2 < len(b) && b[i+2] != 'Z' && b[i+2] != 'X'
}

// Leftovers lists the processes that belong to the data directory: its
// PostgreSQL server with all backends, whoever started it, and the instance
// and proxy processes started with -D on it.
func Leftovers(dir datadir.Dir) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() || !alive(pid) {
			continue
		}
		if isPostgresOf(pid, dir) || trunklineVerb(pid, dir) != "" {
			pids = append(pids, pid)
		}
	}
	return pids
}

// isPostgresOf reports whether pid is a process of the PostgreSQL server on
// dir: they all have it as their working directory.
func isPostgresOf(pid int, dir datadir.Dir) bool {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	cwd, err := os.Readlink(filepath.Join(proc, "cwd"))
	if err != nil || strings.TrimSuffix(cwd, " (deleted)") != string(dir) {
		return false
	}
	exe, err := os.Readlink(filepath.Join(proc, "exe"))
	return err == nil && filepath.Base(strings.TrimSuffix(exe, " (deleted)")) == "postgres"
}

// trunklineVerb returns "instance" or "proxy" when pid was started as
// `… instance -D dir` or `… proxy -D dir`, and "" otherwise.
func trunklineVerb(pid int, dir datadir.Dir) string {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	if err != nil {
		return ""
	}
	args := strings.Split(string(b), "\x00")
	if len(args) >= 4 && (args[1] == "instance" || args[1] == "proxy") &&
		args[2] == "-D" && args[3] == string(dir) {
		return args[1]
	}
	return ""
}

// KillLeftovers ends every process of [Leftovers] and waits until they are
// gone. It is for a data directory that nobody runs or that shall go.
func KillLeftovers(ctx context.Context, dir datadir.Dir) error {
	for i := 0; ; i++ {
		pids := Leftovers(dir)
		if len(pids) == 0 {
			return nil
		}
		for _, pid := range pids { // each looked at an instant ago
			switch verb := trunklineVerb(pid, dir); {
			case i > 50:
				_ = syscall.Kill(pid, syscall.SIGKILL)
			case i == 0 && verb == "proxy":
				_ = syscall.Kill(pid, syscall.SIGTERM)
			case i == 0 && verb == "":
				_ = syscall.Kill(pid, syscall.SIGQUIT)
			case i == 10 && verb == "instance": // not one that is just leaving
				_ = syscall.Kill(pid, syscall.SIGINT)
			}
		}
		if !sleep(ctx, 20*time.Millisecond) {
			return fmt.Errorf("processes %v of %s do not end: %w", pids, dir, ctx.Err())
		}
	}
}

// killPostgres ends every PostgreSQL process on dir and waits until they are
// gone. They are of a server whose postmaster is gone or must go: its shared
// memory is rebuilt at the next start anyway.
func killPostgres(ctx context.Context, dir datadir.Dir) error {
	return killAll(ctx, dir, syscall.SIGQUIT, func(pid int) bool { return isPostgresOf(pid, dir) })
}

// killProxies does the same to proxies of an instance that was killed: their
// successor wants their port.
func killProxies(ctx context.Context, dir datadir.Dir) error {
	return killAll(ctx, dir, syscall.SIGTERM, func(pid int) bool { return trunklineVerb(pid, dir) == "proxy" })
}

// killAll sends sig to the matching leftovers, after a second SIGKILL, and
// waits until there are none.
func killAll(ctx context.Context, dir datadir.Dir, sig syscall.Signal, match func(pid int) bool) error {
	for i := 0; ; i++ {
		left := slices.DeleteFunc(Leftovers(dir), func(pid int) bool { return !match(pid) })
		if len(left) == 0 {
			return nil
		}
		for _, pid := range left {
			if i == 0 {
				_ = syscall.Kill(pid, sig)
			} else if i > 50 {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		if !sleep(ctx, 20*time.Millisecond) {
			return fmt.Errorf("processes %v of %s do not end: %w", left, dir, ctx.Err())
		}
	}
}

// removeStale removes what a PostgreSQL server that did not end properly left
// behind, once no process of it lives.
func removeStale(dir datadir.Dir) {
	_ = os.Remove(dir.PostmasterPid())
	socks, _ := filepath.Glob(filepath.Join(dir.SocketDir(), ".s.PGSQL.*"))
	for _, s := range socks {
		_ = os.Remove(s)
	}
}
